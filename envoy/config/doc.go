// Package config prints Envoy configuration that uses Tollgate and works as it
// is: a whole bootstrap, or the parts to put into one's own.
//
// The printed YAML is meant to be read. Its templates are in the folder
// templates, one file for each part; what each setting protects from stands
// beside it. All of it loads in Envoy 1.36 and later.
//
// What every configuration does, whatever the mode:
//
//   - Paths are brought to one spelling before anything looks at them.
//   - Headers that only Tollgate may set are removed from what clients send.
//   - Tollgate is asked with a deadline above the longest time that it may hold
//     a request, is asked again on another instance when one goes away, and
//     what happens when none answers is written down.
package config
