// Package guard slows External Secrets down where it can only fail.
//
// External Secrets retries what fails after 1, 2, 4 s and so on, and then every
// seven minutes for ever: 205 calls a day for an object whose record was deleted. It
// refreshes nothing whose refreshInterval is 0 and that has synced before, so such
// an object is parked: its interval is set to 0, with the original in the annotation
// [Mark]. Once a day it gets the original back for one attempt. It gets it back
// for good when the attempt succeeds, when somebody changes its spec or gives up the
// annotation [OptIn], and when a webhook says that its record has changed.
//
// That an attempt has failed External Secrets does not show where the one before had
// failed in the same way: the object stays as it is. So the message of its condition
// Ready, whose status stays False, says that it is parked; External Secrets writes
// its own again when the attempt has failed. That is the moment to park it again.
// The same change makes External Secrets look at the object, so that an attempt costs
// one call or two.
//
// What was parked stays known in the cluster: after the companion has died, the next
// one goes on. There is no such lever for an object that has never synced, nor for a
// refreshPolicy other than Periodic or what a ClusterExternalSecret makes: these are
// only counted and listed. Nor does it stop External Secrets where the Secret itself
// is missing or was changed: it is made again whatever the interval.
package guard
