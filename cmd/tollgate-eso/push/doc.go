// Package push makes External Secrets read what has changed.
//
// A [Pusher] takes jobs from a webhook.Queue, finds by an index which external
// secrets read the record ([Index]), and annotates each with force-sync, once per
// object and coalescing window. External Secrets then refreshes it, which costs
// as many calls as it has entries. Annotations go out in batches of at most as
// many calls as Tollgate says the upstream allows just now, less those of
// external secrets that were annotated and have not come back; in a pause none
// goes out.
//
// A job is done when every external secret that it means was annotated after its
// last event. Until then it is on disk, so that a process that is killed loses
// none; what it had annotated already is seen by the annotation and not annotated
// again. Once in a while, a day unless configured otherwise, everything that was
// not refreshed since is: webhooks get lost.
package push
