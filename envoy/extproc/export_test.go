package extproc

// AskForBody is what Envoy is told when the body of an answer matters, ReadBody
// what is taken of it.
var (
	AskForBody = askForBody
	ReadBody   = readBody
)
