package descriptors

import (
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/yamlfile"
)

// Config is one domain's rules as they were written, unchecked. [Parse] makes
// it from a file; whoever gets rules from elsewhere fills it in and calls [Build].
type Config struct {
	Name        string // of the file or resource, for messages
	Domain      string
	Descriptors []Descriptor

	source
}

// Descriptor is one descriptor of a Config.
type Descriptor struct {
	Key            string
	Value          string      // empty: any
	Limits         []RateLimit // rate_limit, usually one or none
	Descriptors    []Descriptor
	Shadow         bool
	Quota          bool
	DetailedMetric bool
	ValueToMetric  bool
	ShareThreshold bool
	Metadata       map[string]any

	source
}

// RateLimit is one limit of a Descriptor.
type RateLimit struct {
	Name            string
	Replaces        []string
	Unit            Unit
	UnitMultiplier  uint32 // 0 means 1
	RequestsPerUnit uint32
	Unlimited       bool
	Algorithm       string // fixed_window, rate, window or pace; empty means fixed_window
	Burst           int64  // of rate; 0 means one second's worth
	MaxWait         time.Duration
	OnError         string // local, allow or deny; empty: as the cluster says

	source
	counts bool // requests_per_unit was written, be it 0
}

// source is where something was read from. It is zero where that is no file.
type source struct {
	at     *yamlfile.Map
	unread []string // keys with a problem that has been reported already
}

// Options change how rules are read. The zero value is strict.
type Options struct {
	MergeDomains bool // files may share a domain
}

// File is a rule file as read by the caller.
type File struct {
	Name string // for messages
	Data []byte
}

// Parse reads rule files, one domain each. The order of the files is the order
// of wildcards where files share a domain. The error is [yamlfile.Problems]:
// everything that is wrong in any file.
func Parse(files []File, o Options) (*Rules, error) {
	docs := make([]*yamlfile.Document, len(files))
	configs := make([]Config, 0, len(files))
	for i, f := range files {
		docs[i] = yamlfile.Parse(f.Name, f.Data, yamlfile.Options{})
		r := reader{doc: docs[i]}
		if c, ok := r.config(f.Name); ok {
			configs = append(configs, c)
		}
	}
	b := newBuilder(o)
	b.build(configs)
	problems := b.problems
	for _, doc := range docs {
		problems = append(problems, doc.Problems()...)
	}
	if err := problems.ErrOrNil(); err != nil {
		return nil, err
	}
	return b.rules, nil
}

// Build checks rules and makes them ready to match. The error is
// [yamlfile.Problems]; each names the config and the descriptor.
func Build(configs []Config, o Options) (*Rules, error) {
	b := newBuilder(o)
	b.build(configs)
	if err := b.problems.ErrOrNil(); err != nil {
		return nil, err
	}
	return b.rules, nil
}
