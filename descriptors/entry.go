package descriptors

// Entry is one key and value of a request's descriptor.
type Entry struct{ Key, Value string }

// Subject says whose own limits a descriptor takes from beside the rule's.
type Subject int

// The subjects of a descriptor.
const (
	SubjectNone     Subject = iota
	SubjectToken            // an entry `token` names a credential
	SubjectConsumer         // an entry `consumer` names a consumer's id
)

const (
	tokenKey    = "token"
	consumerKey = "consumer"
)

// SubjectOf finds the first entry `token` or `consumer` of a descriptor and
// returns its value. It does not depend on the rules.
func SubjectOf(entries []Entry) (s Subject, value string) {
	for _, e := range entries {
		switch {
		case e.Value == "":
		case e.Key == tokenKey:
			return SubjectToken, e.Value
		case e.Key == consumerKey:
			return SubjectConsumer, e.Value
		}
	}
	return SubjectNone, ""
}
