// Package config reads tollgate.yaml and every file it names.
//
// [Load] reads all that `tollgate serve` needs from disk (the configuration,
// the consumers file, the rule files, the certificates) into one immutable
// [Loaded], or returns every problem of every file at once, each with its
// position. `tollgate check` prints what Load returns and is therefore never of
// another opinion than the server. [Watcher] tells when one of the files may
// have changed.
//
// Decoding is strict: a key that nobody knows, a bad unit or a duplicate is a
// problem, and a key of a part that this build does not have is one too, never
// silently ignored. Paths are relative to the file that names them. ${NAME} and
// ${NAME:-default} are expanded in values.
package config
