// Package keeper is a fake of Keeper Secrets Manager's API that the vendor's own
// SDK accepts, an authority for its certificates, and Tollgate with a real Envoy
// before it. It is for tests and examples.
package keeper
