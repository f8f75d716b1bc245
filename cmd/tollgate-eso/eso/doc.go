// Package eso knows the objects of External Secrets Operator: stores, external
// secrets and push secrets, as far as Tollgate's companion reads them.
//
// The types hold fewer fields than the objects have, so an object read through
// them must never be written back whole: everything here is changed by patches.
// [ExternalSecret.Calls] says what a refresh costs the upstream,
// [ExternalSecret.Keys] what it reads there, and [ExternalSecret.Unreachable]
// why a force-sync would do nothing.
package eso
