package extproc

// AskForBody is what Envoy is told when the body of an answer matters.
var AskForBody = askForBody
