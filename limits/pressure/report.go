package pressure

import "github.com/tollgate-dev/tollgate/limits"

// Seen is what an upstream took of somebody's requests.
type Seen struct {
	Long, Short int64 // over the period of its limit, and over that in which it lets a burst come
	Whole       bool  // it was asked all through the longer period
}

// Plus returns what was taken of both.
func (s Seen) Plus(o Seen) Seen {
	return Seen{s.Long + o.Long, s.Short + o.Short, s.Whole || o.Whole}
}

// Report is what one instance tells the others of an upstream: all that it
// knows each time, so that nothing is lost that a store forgets.
type Report struct {
	ID    string
	Gate  State
	Reset limits.Time // when the pressure was ended by hand; 0: nothing that the others do not know

	Share      SavedShare
	ShareStamp int64 // of the share that it was made from, as in Heard; 0: of none
	ShareNew   bool  // it was changed here since

	Seen     Seen
	SeenLong int64 // for how many nanoseconds Seen says something
}

// Heard is what all instances together know of an upstream.
type Heard struct {
	Gate  State // the last violation; the zero State if there is none
	Own   int64 // the stamp of the violation that was reported; 0: it is void
	Reset int64 // stamp of the last end by hand: what was stamped before is void

	Share      SavedShare
	ShareStamp int64 // 0: nobody has learned anything

	Probe    limits.Time // until when a probe is waited for; 0: none is out
	OwnProbe bool        // and it is the asker's

	Others Seen  // what was taken of the other instances' requests
	Peers  int64 // how many instances there are
}
