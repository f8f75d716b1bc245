package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// Effect is what an event is to lead to.
type Effect string

// The effects.
const (
	Record Effect = "record" // what reads its records is refreshed
	All    Effect = "all"    // everything of the upstream's stores is
	Ignore Effect = "ignore" // nothing is
)

// Adapter says where in a body things stand. An unset path is nowhere.
type Adapter struct {
	Event   Path   // the event's name; unset: every body is a Record event
	Records []Path // the uids of its records
	Titles  []Path // their titles, for stores that are read by title
	Time    Path   // seconds or milliseconds since 1970, or RFC 3339; unset: now
	ID      Path   // what tells events apart; unset: the body does
	Effects map[string]Effect
}

// maxRecords bounds what one event may name. One that names more means all.
const maxRecords = 1000

// Event is a body that was understood.
type Event struct {
	Name    string
	Effect  Effect
	Records []string
	Titles  []string
	Time    time.Time // zero: the body has none
	ID      string    // empty: the body has none
}

// Read understands a body. An event that the adapter does not list is to be
// ignored, and no error; a listed one without a record is.
func (a Adapter) Read(body []byte) (Event, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var document any
	if err := d.Decode(&document); err != nil {
		return Event{}, fmt.Errorf("not JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Event{}, errors.New("more than one JSON document")
	}
	if _, ok := document.(map[string]any); !ok {
		return Event{}, errors.New("not a JSON object")
	}
	e := Event{Name: a.Event.First(document), ID: a.ID.First(document), Effect: Record}
	if len(a.Event.steps) > 0 {
		if e.Name == "" {
			return Event{}, errors.New("no event is named")
		}
		var listed bool
		if e.Effect, listed = a.Effects[e.Name]; !listed {
			e.Effect = Ignore
		}
	}
	var err error
	if e.Time, err = parseTime(a.Time.First(document)); err != nil {
		return Event{}, err
	}
	for _, p := range a.Records {
		e.Records = append(e.Records, p.Find(document)...)
	}
	for _, p := range a.Titles {
		e.Titles = append(e.Titles, p.Find(document)...)
	}
	if len(e.Records)+len(e.Titles) > maxRecords && e.Effect == Record {
		e.Effect = All
	}
	if e.Effect == Record && len(e.Records)+len(e.Titles) == 0 {
		return Event{}, fmt.Errorf("event %q names no record", e.Name)
	}
	return e, nil
}

// parseTime reads what senders write; "" is none.
func parseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if n, err := strconv.ParseFloat(s, 64); err == nil && n > 0 && n < 1e14 {
		if n >= 1e11 { // seconds reach this in the year 5138
			return time.UnixMilli(int64(n)), nil
		}
		return time.UnixMilli(int64(n * 1000)), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("time %q: want seconds or milliseconds since 1970, or RFC 3339", s)
	}
	return t, nil
}

// Presets returns the adapters of known senders, by name. The caller may change
// what it gets.
//
// keeper is Keeper's audit event, which an alert sends where its body template
// is #json (https://docs.keeper.io: Advanced Reporting & Alerts, webhooks).
func Presets() map[string]Adapter {
	at := func(name string) Path { return Path{steps: []step{{name: name}}} }
	return map[string]Adapter{"keeper": {
		Event:   at("audit_event"),
		Records: []Path{at("record_uid"), at("secret_uid")},
		Time:    at("timestamp"),
		Effects: map[string]Effect{
			"record_add": Record, "record_update": Record, "record_delete": Record,
			"record_restored": Record, "record_rotation_scheduled_ok": Record, "record_rotation_on_demand_ok": Record,
			"app_record_shared": Record, "app_record_removed": Record, "app_record_share_changed": Record,
			"app_folder_shared": All, "app_folder_removed": All, "app_folder_share_changed": All,
			"folder_add_record": All, "folder_remove_record": All, "shared_folder_delete": All,
		},
	}}
}
