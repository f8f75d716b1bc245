package file

import (
	"os"
	"strings"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/descriptors/yamlfile"
)

// Load reads the file at path. It returns the same as [Parse].
func Load(path string, o yamlfile.Options) (consumers.Set, yamlfile.Problems, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return consumers.Set{}, nil, err
	}
	return Parse(path, data, o)
}

// Parse reads a consumers file; name is for messages. It returns what works but
// should be changed as warnings. The error is yamlfile.Problems, all at once; a
// file without consumers is one, since it is rarely meant: an empty list, written
// as such, is not.
func Parse(name string, data []byte, o yamlfile.Options) (consumers.Set, yamlfile.Problems, error) {
	doc := yamlfile.Parse(name, data, o)
	r := reader{ids: map[string]int{}, secrets: map[consumers.Hash]string{}}
	switch {
	case doc.Err() != nil:
	case doc.Empty():
		doc.Root().Errorf("the file is empty: want consumers; write `consumers: []` if there are to be none")
	default:
		r.read(doc.Root())
	}
	if err := doc.Err(); err != nil {
		return consumers.Set{}, nil, err
	}
	return r.set, r.warnings, nil
}

// reader collects what the file says.
type reader struct {
	set      consumers.Set
	warnings yamlfile.Problems
	ids      map[string]int            // consumer id -> line
	secrets  map[consumers.Hash]string // -> who has it
}

func (r *reader) read(root yamlfile.Node) {
	m := root.Map()
	if n, ok := m.Get("plans"); ok {
		r.set.Plans = ReadPlans(n)
	}
	if n, ok := m.Get("consumers"); ok {
		for _, e := range n.List() {
			r.consumer(e)
		}
	} else {
		m.Node().Errorf("want consumers; write `consumers: []` if there are to be none")
	}
	m.Done()
}

// ReadPlans reads a mapping of names to limits, as it stands under `plans`.
func ReadPlans(n yamlfile.Node) map[string]consumers.Plan {
	plans := map[string]consumers.Plan{}
	for _, e := range n.Map().Entries() {
		checkID(e.At, e.Key)
		m := e.Value.Map()
		plans[e.Key] = consumers.Plan{Limits: limitsOf(m)}
		m.Done()
	}
	return plans
}

func (r *reader) consumer(n yamlfile.Node) {
	m := n.Map()
	var c consumers.Consumer
	if id, ok := m.Get("id"); ok {
		c.ID = id.String()
		checkID(id, c.ID)
		if line, dup := r.ids[c.ID]; dup {
			id.Errorf("consumer %q is given already on line %d", c.ID, line)
		}
		r.ids[c.ID] = id.Line()
	} else {
		n.Errorf("a consumer needs an id")
	}
	if p, ok := m.Get("plan"); ok {
		c.Plan = p.String()
		if _, known := r.set.Plans[c.Plan]; !known {
			p.Errorf("unknown plan %q", c.Plan)
		}
	}
	c.Limits = limitsOf(m)
	if l, ok := m.Get("labels"); ok {
		c.Labels = map[string]string{}
		for _, e := range l.Map().Entries() {
			c.Labels[e.Key] = e.Value.String()
		}
	}
	if d, ok := m.Get("disabled"); ok {
		c.Disabled = d.Bool()
	}
	if ts, ok := m.Get("tokens"); ok {
		seen := map[string]bool{}
		for _, e := range ts.List() {
			c.Tokens = append(c.Tokens, r.token(e, &c, seen))
		}
	}
	m.Done()
	r.set.Consumers = append(r.set.Consumers, c)
}

// limitsOf reads limits, or limit for short.
func limitsOf(m *yamlfile.Map) consumers.Limits {
	short, one := m.Get("limit")
	list, many := m.Get("limits")
	switch {
	case one && many:
		short.Errorf("limit beside limits: want one of them")
	case one && (short.IsList() || short.IsMap()):
		short.Errorf("limit is the short form, as in limit: 100/s: write limits: [{…}]")
	case one:
		return consumers.ReadLimits(short)
	case many && !list.IsList():
		list.Errorf("limits is a list, as in limits: [{rate: 100/s}]; the short form is limit: 100/s")
	case many:
		ls := consumers.ReadLimits(list)
		for _, p := range ls.Clashes() {
			list.Errorf("%s", p)
		}
		return ls
	}
	return nil
}

func (r *reader) token(n yamlfile.Node, c *consumers.Consumer, seen map[string]bool) consumers.Token {
	m := n.Map()
	var t consumers.Token
	if id, ok := m.Get("id"); ok {
		t.ID = id.String()
		checkID(id, t.ID)
		if seen[t.ID] {
			id.Errorf("token %q of consumer %q is given already", t.ID, c.ID)
		}
		seen[t.ID] = true
	} else {
		n.Errorf("a token needs an id")
	}
	sum, hashed := m.Get("sha256")
	value, clear := m.Get("value")
	switch {
	case hashed && clear:
		value.Errorf("value beside sha256: want one of them")
	case hashed:
		h, err := consumers.ParseHash(sum.String())
		if err != nil {
			sum.Errorf("sha256: %v", err)
			break
		}
		t.Hash = h
		r.secret(sum, t, c)
	case clear:
		t.Hash = r.hash(value, t, c)
		r.secret(value, t, c)
	default:
		n.Errorf("a token needs sha256 (or value, in development)")
	}
	if e, ok := m.Get("expires"); ok {
		t.Expires = e.Time()
	}
	m.Done()
	return t
}

// hash hashes a secret that stands in the file, and says that it should not.
func (r *reader) hash(n yamlfile.Node, t consumers.Token, c *consumers.Consumer) consumers.Hash {
	secret := n.String()
	switch {
	case secret == "" || strings.TrimSpace(secret) != secret:
		n.Errorf("value: want a secret without spaces around it")
	case !consumers.WellFormed(secret):
		n.Errorf("value: begins with %s but has not the checksum of a token that Tollgate issued: it was mistyped, or needs another beginning", consumers.TokenPrefix)
	default:
		r.warnings = append(r.warnings, n.Problem("token %q of consumer %q stands here in clear: prefer sha256, made by `printf %%s TOKEN | sha256sum`", t.ID, c.ID))
	}
	return consumers.HashOf(secret)
}

// secret notes whose a secret is.
func (r *reader) secret(n yamlfile.Node, t consumers.Token, c *consumers.Consumer) {
	holder := "token " + t.ID + " of consumer " + c.ID
	if other, dup := r.secrets[t.Hash]; dup {
		n.Errorf("the same secret as %s", other)
	}
	r.secrets[t.Hash] = holder
}

func checkID(n yamlfile.Node, id string) {
	if err := consumers.CheckID(id); err != nil {
		n.Errorf("%v", err)
	}
}
