// Package restore refreshes very many external secrets after a disaster, no faster
// than the upstream allows.
//
// Kubernetes.Load finds the external secrets of an upstream's stores, in the cluster
// and in manifests, as targets in waves: the higher priority first, by the annotation
// [Priority], and what makes a Secret before what needs it, because its store
// authenticates with it or its template is made of it ([Order]). [Run] writes as many of a wave as the upstream allows just now, by
// calls and not by objects, less the calls of those that were written and have not
// come back; it counts again when they have. A wave begins when all of the one
// before have synced or failed.
//
// What is done is kept in the cluster: the write that makes External Secrets
// refresh an object also marks it, by the annotation [Mark], with the run, the time
// and what had been synced before. A run that was killed goes on under its name.
package restore
