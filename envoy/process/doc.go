// Package process runs an Envoy: it finds a binary, starts it on a bootstrap,
// waits until it serves and stops it. Tests and `tollgate demo` use it; serving
// decisions never does.
//
// A bootstrap may leave its ports to the kernel (port 0): [Envoy.Admin] and
// [Envoy.Listener] tell which ones it got, so that any number of Envoys run
// side by side.
package process
