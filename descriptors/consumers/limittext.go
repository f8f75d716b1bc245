package consumers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// limitText is a limit as people write it: the members of JSON and the keys of
// YAML. Everything that reads or writes limits goes through it.
type limitText struct {
	Rate            string      `json:"rate,omitempty"`
	Window          string      `json:"window,omitempty"`
	Quota           string      `json:"quota,omitempty"`
	Pace            string      `json:"pace,omitempty"`
	IdleReset       string      `json:"idle_reset,omitempty"`
	FixedWindow     string      `json:"fixed_window,omitempty"`
	SmoothBursty    string      `json:"smooth_bursty,omitempty"`
	SmoothWarmingUp string      `json:"smooth_warming_up,omitempty"`
	Burst           int64       `json:"burst,omitempty"`
	Name            string      `json:"name,omitempty"`
	Per             string      `json:"per,omitempty"`
	Mode            string      `json:"mode,omitempty"`
	OnError         string      `json:"on_error,omitempty"`
	MaxWait         string      `json:"max_wait,omitempty"`
	Timezone        string      `json:"timezone,omitempty"`
	WarmUp          *warmUpText `json:"warm_up,omitempty"`
}

// warmUpText is a warm-up as people write it, or "none".
type warmUpText struct {
	Grace      string `json:"grace,omitempty"`
	GraceLimit int64  `json:"grace_limit,omitempty"`
	Ramp       string `json:"ramp,omitempty"`
}

// value is the field of a kind.
func (t *limitText) value(k limits.Kind) *string {
	switch k {
	case limits.Rate:
		return &t.Rate
	case limits.Window:
		return &t.Window
	case limits.Quota:
		return &t.Quota
	case limits.Pace:
		return &t.Pace
	case limits.IdleReset:
		return &t.IdleReset
	case limits.FixedWindow:
		return &t.FixedWindow
	case limits.SmoothBursty:
		return &t.SmoothBursty
	}
	return &t.SmoothWarmingUp
}

// unlimited reports whether the text is a lone `rate: none`.
func (t *limitText) unlimited() bool {
	return *t == limitText{Rate: none}
}

// problem is told what is wrong with which key; an empty key means the limit
// as a whole.
type problem func(key, format string, args ...any)

// limit checks the text and returns what it says, a zero Limit if that is
// nothing.
func (t *limitText) limit(report problem) Limit {
	failed := false
	bad := func(key, format string, args ...any) {
		failed = true
		report(key, format, args...)
	}
	var l Limit
	for _, k := range kinds {
		v := *t.value(k)
		switch {
		case v == "":
			continue
		case l.Kind != "":
			bad(string(k), "%s beside %s: want one kind in a limit, write a second limit", k, l.Kind)
			continue
		}
		l.Kind = k
		var err error
		if k == limits.Quota {
			l.N, l.Calendar, err = limits.ParseQuota(v)
		} else {
			l.N, l.Period, err = limits.ParseRate(v)
		}
		switch {
		case v == none:
			bad(string(k), "none: stands alone, as the only limit and without other keys")
		case err != nil:
			bad(string(k), "%w", err)
		}
	}
	if l.Kind == "" {
		bad("", "want one of %s", kindList())
	}
	l.Name, l.Burst = t.Name, t.Burst
	l.PerConsumer = choice(bad, "per", t.Per, "token", "consumer") == "consumer"
	l.Shadow = choice(bad, "mode", t.Mode, "enforce", "shadow") == "shadow"
	l.OnError = limits.OnError(choice(bad, "on_error", t.OnError, "local", "allow", "deny"))
	l.MaxWait = duration(bad, "max_wait", t.MaxWait)
	loc, err := Location(t.Timezone)
	if err != nil {
		bad("timezone", "%q: want a name such as UTC or Europe/Berlin", t.Timezone)
	}
	l.Location = loc
	if w := t.WarmUp; w != nil {
		l.OwnWarmUp = true
		l.WarmUp = limits.WarmUp{Grace: duration(bad, "warm_up", w.Grace), GraceLimit: w.GraceLimit, Ramp: duration(bad, "warm_up", w.Ramp)}
	}
	if failed {
		return Limit{}
	}
	if _, err := l.compile(limits.WarmUp{}); err != nil {
		bad("", "%w", err)
	}
	return l
}

func choice(bad problem, key, got string, want ...string) string {
	if got == "" {
		return ""
	}
	for _, w := range want {
		if got == w {
			return got
		}
	}
	bad(key, "%q: want %s", got, strings.Join(want, " or "))
	return ""
}

func duration(bad problem, key, s string) time.Duration {
	if s == "" || s == "0" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		bad(key, "%q: want a duration such as 30s, 250ms or 1h30m", s)
		return 0
	}
	return d
}

func kindList() string {
	words := make([]string, len(kinds))
	for i, k := range kinds {
		words[i] = string(k)
	}
	return strings.Join(words, ", ")
}

// text is what limit reads.
func (l Limit) text() limitText {
	t := limitText{Burst: l.Burst, Name: l.Name, OnError: string(l.OnError)}
	if l.Kind == limits.Quota {
		t.Quota = strconv.FormatInt(l.N, 10) + "/" + string(l.Calendar)
	} else {
		*t.value(l.Kind) = limits.FormatRate(l.N, l.Period)
	}
	if l.PerConsumer {
		t.Per = "consumer"
	}
	if l.Shadow {
		t.Mode = "shadow"
	}
	if l.MaxWait != 0 {
		t.MaxWait = l.MaxWait.String()
	}
	if l.Location != nil && l.Location != time.UTC {
		t.Timezone = l.Location.String()
	}
	if l.OwnWarmUp {
		t.WarmUp = &warmUpText{GraceLimit: l.WarmUp.GraceLimit}
		if l.WarmUp.Grace != 0 {
			t.WarmUp.Grace = l.WarmUp.Grace.String()
		}
		if l.WarmUp.Ramp != 0 {
			t.WarmUp.Ramp = l.WarmUp.Ramp.String()
		}
	}
	return t
}

// String writes the limit in the short form where it has one, as 100/s, else
// with its keys, as window: 200/10s, max_wait: 30s.
func (l Limit) String() string {
	t := l.text()
	if t == (limitText{Rate: t.Rate}) {
		return t.Rate
	}
	b, err := json.Marshal(t)
	if err != nil {
		return err.Error()
	}
	s := strings.NewReplacer(`":`, ": ", `,"`, ", ", `"`, "").Replace(string(b))
	return strings.Trim(s, "{}")
}

// ParseLimit reads the short form of a limit: 100/s, a rate. It is the form of
// the command line and of `limit:`. For `none` it returns nil.
func ParseLimit(s string) (*Limit, error) {
	if s == none {
		return nil, nil
	}
	var ps problems
	t := limitText{Rate: s}
	l := t.limit(ps.add)
	return &l, ps.err()
}

// MarshalJSON writes the limit as an object.
func (l Limit) MarshalJSON() ([]byte, error) {
	return json.Marshal(l.text())
}

// UnmarshalJSON reads an object or the short form. Unknown members and values
// of another type are errors; all that is wrong with the values is reported at once.
func (l *Limit) UnmarshalJSON(data []byte) error {
	var t limitText
	if err := t.unmarshal(data); err != nil {
		return err
	}
	var ps problems
	*l = t.limit(ps.add)
	return ps.err()
}

func (t *limitText) unmarshal(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		return json.Unmarshal(data, &t.Rate)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(t)
}

// MarshalJSON writes a list; unlimited is written as [{"rate":"none"}], nil as [].
func (ls Limits) MarshalJSON() ([]byte, error) {
	if ls.Unlimited() {
		return []byte(`[{"rate":"none"}]`), nil
	}
	return json.Marshal(append([]Limit{}, ls...))
}

// UnmarshalJSON reads a list of limits, or one limit in short form. An empty
// list is nil: no limits are given; `none` is unlimited.
func (ls *Limits) UnmarshalJSON(data []byte) error {
	var texts []json.RawMessage
	if len(data) > 0 && data[0] == '"' {
		texts = []json.RawMessage{data}
	} else if err := json.Unmarshal(data, &texts); err != nil {
		return err
	}
	var ps problems
	var list Limits
	for i, raw := range texts {
		var t limitText
		if err := t.unmarshal(raw); err != nil {
			return err
		}
		if t.unlimited() && len(texts) == 1 {
			*ls = Limits{}
			return nil
		}
		list = append(list, t.limit(func(key, format string, args ...any) {
			ps.add(fmt.Sprintf("limits[%d].%s", i, key), format, args...)
		}))
	}
	*ls = list
	return ps.err()
}

// UnmarshalJSON reads an object or "none".
func (w *warmUpText) UnmarshalJSON(data []byte) error {
	var s string
	if json.Unmarshal(data, &s) == nil {
		if s != none {
			return fmt.Errorf("warm_up: %q: want none, or an object with grace, ramp and grace_limit", s)
		}
		*w = warmUpText{}
		return nil
	}
	type plain warmUpText
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode((*plain)(w))
}

// MarshalJSON writes what UnmarshalJSON reads.
func (w *warmUpText) MarshalJSON() ([]byte, error) {
	if *w == (warmUpText{}) {
		return []byte(`"none"`), nil
	}
	type plain warmUpText
	return json.Marshal((*plain)(w))
}

// problems collects what is wrong with a value.
type problems []error

func (ps *problems) add(key, format string, args ...any) {
	err := fmt.Errorf(format, args...)
	if key = strings.TrimSuffix(key, "."); key != "" {
		err = fmt.Errorf("%s: %w", key, err)
	}
	*ps = append(*ps, err)
}

func (ps problems) err() error {
	return errors.Join(ps...)
}

// encodeLimits writes a list as text that decodeLimits reads; equal lists have
// equal texts. Nil is empty.
func encodeLimits(ls Limits) string {
	switch {
	case ls == nil:
		return ""
	case len(ls) == 0:
		return none
	case len(ls) == 1:
		if t := ls[0].text(); t == (limitText{Rate: t.Rate}) {
			return t.Rate
		}
	}
	b, err := json.Marshal([]Limit(ls))
	if err != nil {
		return err.Error() // no field of limitText can fail
	}
	return string(b)
}

func decodeLimits(s string) (Limits, error) {
	if s == "" {
		return nil, nil
	}
	if s[0] != '[' {
		s = strconv.Quote(s)
	}
	var ls Limits
	err := ls.UnmarshalJSON([]byte(s))
	return ls, err
}
