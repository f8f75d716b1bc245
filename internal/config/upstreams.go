package config

import (
	"embed"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/descriptors/yamlfile"
	"github.com/tollgate-dev/tollgate/extauthz"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/pressure"
)

// presets are upstreams as data: files of the keys that an upstream has.
//
//go:embed presets/*.yaml
var presets embed.FS

// Presets returns the names that `preset` knows.
func Presets() []string {
	entries, _ := presets.ReadDir("presets") // it is part of the program
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	return names
}

// standardSignals are those of an upstream that names none.
var standardSignals = []upstreams.Signal{{Status: 429}, {Status: 503, Header: "retry-after"}}

func (r *reader) upstreams(n yamlfile.Node) {
	r.c.Upstreams = nil
	r.c.Policy.RemoteAddress = true // callers take turns by it
	for _, e := range n.List() {
		u := readUpstream(e)
		if slices.ContainsFunc(r.c.Upstreams, func(o *upstreams.Config) bool { return o.ID == u.ID }) && u.ID != "" {
			e.Errorf("id %q: stands for another upstream already", u.ID)
		}
		r.c.Upstreams = append(r.c.Upstreams, u)
	}
}

// ParseUpstreams reads a document whose only key is upstreams, as the
// configuration has it. The error is yamlfile.Problems.
func ParseUpstreams(file string, data []byte) ([]*upstreams.Config, error) {
	doc := yamlfile.Parse(file, data, yamlfile.Options{})
	var r reader
	doc.Root().Each(map[string]func(yamlfile.Node){"upstreams": r.upstreams})
	return r.c.Upstreams, doc.Err()
}

// readUpstream reads one upstream, over its preset.
func readUpstream(n yamlfile.Node) *upstreams.Config {
	u := &upstreams.Config{Signals: standardSignals}
	if p, ok := n.Map().Get("preset"); ok {
		u.ID = p.OneOf(Presets()...)
		preset(u)
	}
	n.Each(map[string]func(yamlfile.Node){
		"id":       func(n yamlfile.Node) { u.ID = upstreamID(n) },
		"preset":   func(yamlfile.Node) {},
		"match":    func(n yamlfile.Node) { u.Hosts = readMatch(n) },
		"limits":   func(n yamlfile.Node) { u.Limits = readUpstreamLimits(n) },
		"pressure": func(n yamlfile.Node) { readPressure(n, u) },
		"budget":   func(n yamlfile.Node) { u.Budget = readBudget(n) },
		"answer":   func(n yamlfile.Node) { u.Answer = readAnswer(n) },
		"caller":   func(n yamlfile.Node) { u.Caller = readPlaceOf(n) },
		"queue":    func(n yamlfile.Node) { u.Queue = int(n.Int(1, 10_000)) },
	})
	if u.ID == "" && n.IsMap() {
		n.Errorf("id: want a name for the upstream: 1 to 128 of A-Z a-z 0-9 . _ @ -")
	}
	return u
}

// preset fills in what the preset of that name says.
func preset(u *upstreams.Config) {
	name := "presets/" + u.ID + ".yaml"
	data, err := presets.ReadFile(name)
	if err != nil {
		return // an unknown name, which is reported
	}
	n := yamlfile.Parse(name, data, yamlfile.Options{}).Root() // a test reads all of them
	n.Each(map[string]func(yamlfile.Node){
		"match":    func(n yamlfile.Node) { u.Hosts = readMatch(n) },
		"limits":   func(n yamlfile.Node) { u.Limits = readUpstreamLimits(n) },
		"pressure": func(n yamlfile.Node) { readPressure(n, u) },
		"answer":   func(n yamlfile.Node) { u.Answer = readAnswer(n) },
	})
}

func upstreamID(n yamlfile.Node) string {
	s := n.String()
	if !id.MatchString(s) {
		n.Errorf("%q: want an id: 1 to 128 of A-Z a-z 0-9 . _ @ -", s)
	}
	return s
}

func readMatch(n yamlfile.Node) (hosts []string) {
	n.Each(map[string]func(yamlfile.Node){"host": func(n yamlfile.Node) {
		list := []yamlfile.Node{n}
		if n.IsList() {
			list = n.List()
		}
		for _, e := range list {
			s := strings.ToLower(strings.TrimSuffix(e.String(), "."))
			if name := strings.TrimPrefix(s, "*."); s != "*" && (name == "" || strings.ContainsAny(name, "*/: ")) {
				e.Errorf("%q: want a host without port, as api.example.com, or *.example.com for all below example.com", s)
			}
			hosts = append(hosts, s)
		}
	}})
	return hosts
}

func readUpstreamLimits(n yamlfile.Node) []upstreams.Limit {
	var all []upstreams.Limit
	for _, e := range n.List() {
		m := e.Map()
		m.Misplaced("belongs to a consumer's limit, not to an upstream's", "per", "mode", "on_error", "warm_up")
		var l upstreams.Limit
		if margin, ok := m.Get("margin"); ok {
			if l.Margin = part(margin); l.Margin >= 1 {
				margin.Errorf("want less than 100%%")
			}
		}
		limit, limited := consumers.ReadLimitMap(m)
		m.Done()
		l.Limit = limit.Limit
		switch {
		case !limited:
			e.Errorf("none: leave the limit out instead")
		case l.Kind != "":
			one := upstreams.Config{Limits: []upstreams.Limit{l}}
			if err := one.Check(); err != nil {
				e.Errorf("%v", err)
			}
			all = append(all, l)
		}
	}
	return all
}

// part reads a part of a whole: 10% or 0.1.
func part(n yamlfile.Node) float64 {
	f, _ := readPart(n)
	return f
}

// readPart is part, and reports whether there is one: what is none has been told.
func readPart(n yamlfile.Node) (float64, bool) {
	s, ok := n.Scalar()
	if !ok {
		return 0, false
	}
	number, percent := strings.CutSuffix(s, "%")
	f, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if percent {
		f /= 100
	}
	if err != nil || !(f >= 0 && f <= 1) { // nor NaN
		n.Errorf("%q: want a part from 0%% to 100%%, such as 10%%", s)
		return 0, false
	}
	return f, true
}

func readPressure(n yamlfile.Node, u *upstreams.Config) {
	p := &u.Pressure
	n.Each(map[string]func(yamlfile.Node){
		"signals": func(n yamlfile.Node) {
			u.Signals = nil
			for _, e := range n.List() {
				u.Signals = append(u.Signals, readSignal(e))
			}
		},
		"initial": func(n yamlfile.Node) { p.Initial = positive(n) },
		"factor":  func(n yamlfile.Node) { p.Factor = factor(n) },
		"max":     func(n yamlfile.Node) { p.Max = positive(n) },
		"cap":     func(n yamlfile.Node) { p.Cap = positive(n) },
		"ramp":    func(n yamlfile.Node) { p.Ramp = positive(n) },
		"probe":   func(n yamlfile.Node) { p.Probe = positive(n) },
	})
	if initial := (pressure.Policy{Initial: p.Initial}).WithDefaults().Initial; p.Max > 0 && p.Max < initial {
		n.Errorf("max %v: want at least initial, %v", p.Max, initial)
	}
}

func readSignal(n yamlfile.Node) upstreams.Signal {
	var s upstreams.Signal
	n.Each(map[string]func(yamlfile.Node){
		"status": func(n yamlfile.Node) { s.Status = int(n.Int(100, 599)) },
		"body":   func(n yamlfile.Node) { s.Body = nonEmpty(n) },
		"header": func(n yamlfile.Node) { s.Header = headerName(n, n.String()) },
	})
	if n.IsMap() && !n.Map().Has("status") {
		n.Errorf("status: want the status of the answers that ask for a pause")
	}
	return s
}

func factor(n yamlfile.Node) float64 {
	s, ok := n.Scalar()
	f, err := strconv.ParseFloat(s, 64)
	if ok && (err != nil || !(f >= 1 && f <= 100)) { // nor NaN
		n.Errorf("%q: want a number from 1 to 100", s)
		return 0
	}
	return f
}

func readAnswer(n yamlfile.Node) upstreams.Answering {
	var a upstreams.Answering
	style := func(n yamlfile.Node) { a.Style = n.OneOf("problem", "apollo", "keeper") }
	if !n.IsMap() {
		style(n)
		return a
	}
	n.Each(map[string]func(yamlfile.Node){
		"style": style,
		"status": func(n yamlfile.Node) {
			if a.Status = int(n.Int(403, 429)); a.Status != 403 && a.Status != 429 {
				n.Errorf("%d: want 403 or 429", a.Status)
			}
		},
	})
	return a
}

// readPlaceOf reads where a property of a request stands.
func readPlaceOf(n yamlfile.Node) upstreams.Source {
	var s extauthz.Source
	readFrom(n, n.String(), &s)
	switch s.From {
	case "consumer", "token", "label", "metadata":
		n.Errorf("%s: is not known of requests that lead out; want one of header:NAME, host, path, method, query:NAME, principal, remote_address, context:KEY", s.From)
	}
	return upstreams.Source{From: s.From, Name: s.Name}
}

func readBudget(n yamlfile.Node) *upstreams.Budget {
	b := &upstreams.Budget{Alerts: []float64{0.5, 0.8, 0.95}}
	n.Each(map[string]func(yamlfile.Node){
		"calls": func(n yamlfile.Node) { b.Periods = readPeriods(n) },
		"timezone": func(n yamlfile.Node) {
			var err error
			if b.Location, err = consumers.Location(n.String()); err != nil {
				n.Errorf("%q: want a name such as UTC or Europe/Berlin", n.String())
			}
		},
		"alerts": func(n yamlfile.Node) {
			b.Alerts = nil
			for _, e := range n.List() {
				alert, ok := readPart(e)
				if ok && alert == 0 {
					e.Errorf("want more than 0%%")
				}
				b.Alerts = append(b.Alerts, alert)
			}
			slices.Sort(b.Alerts)
		},
		"stop":      func(n yamlfile.Node) { b.Soft = !n.Bool() },
		"class":     func(n yamlfile.Node) { b.Class = readPlaceOf(n) },
		"classes":   func(n yamlfile.Node) { b.Classes = readClasses(n) },
		"attribute": func(n yamlfile.Node) { b.Attribute = readPlaceOf(n) },
		"price":     func(n yamlfile.Node) { b.Price = price(n) },
	})
	if len(b.Periods) == 0 && n.IsMap() {
		n.Errorf("calls: want how many calls are in the budget, as [10000/day, 50000/month]")
	}
	return b
}

func readPeriods(n yamlfile.Node) []upstreams.Period {
	list := []yamlfile.Node{n}
	if n.IsList() {
		list = n.List()
	}
	var all []upstreams.Period
	for _, e := range list {
		calls, calendar, err := limits.ParseQuota(e.String())
		if err != nil {
			e.Errorf("%v", err)
		}
		if slices.ContainsFunc(all, func(p upstreams.Period) bool { return p.Calendar == calendar }) {
			e.Errorf("%s: stands twice", calendar)
		}
		all = append(all, upstreams.Period{Calls: calls, Calendar: calendar})
	}
	return all
}

// readClasses reads the classes, the most important first.
func readClasses(n yamlfile.Node) []upstreams.Class {
	var all []upstreams.Class
	var reserved float64
	for _, e := range n.List() {
		var c upstreams.Class
		e.Each(map[string]func(yamlfile.Node){
			"name":    func(n yamlfile.Node) { c.Name = nonEmpty(n) },
			"reserve": func(n yamlfile.Node) { c.Reserve = part(n) },
		})
		if c.Name == "" && e.IsMap() {
			e.Errorf("name: want what the class is called")
		}
		if reserved += c.Reserve; reserved > 1 {
			e.Errorf("reserve: the classes up to this one reserve more than there is")
		}
		all = append(all, c)
	}
	return all
}

func price(n yamlfile.Node) float64 {
	s, ok := n.Scalar()
	f, err := strconv.ParseFloat(s, 64)
	if ok && (err != nil || !(f >= 0 && f <= math.MaxInt32)) { // nor NaN
		n.Errorf("%q: want what a call costs, such as 0.002", s)
		return 0
	}
	return f
}
