// Package events is the record of what was changed, by whom, from what to what:
// every change through the admin API, every reload, every pause of an upstream.
//
// A [Log] keeps the latest events in bounded memory for those who follow it,
// and writes each one, as a line of JSON, to whatever [Log.SendTo] names. An
// event holds no secret: whoever publishes it leaves them out.
//
//	l := events.NewLog(events.Options{})
//	l.Publish(now, events.Event{
//		Kind: "upstream.pause", What: "upstream keeper", Actor: "tollgate",
//		Before: State{"open"}, After: State{"frozen"},
//	})
//
// Followers read from the log itself, each at its own pace. One that is too slow
// loses its place, is told so, and costs nobody anything.
package events
