package sqltest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/consumerstest"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/sqlstore"
	"github.com/tollgate-dev/tollgate/limits"
)

// Database is a source in a database, under test.
type Database struct {
	Server  *Server
	Connect Connect
	Hash    func(token string) string // SQL for the SHA-256 of a token
	Loosen  string                    // drops the constraints of tollgate_tokens and tollgate_consumers
	Newest  int                       // the schema's version
}

// RunAll runs everything that a source in a database must pass. It takes some
// seconds, and stops and kills the server.
func RunAll(t *testing.T, d Database) {
	t.Run("Store", func(t *testing.T) {
		consumerstest.RunStore(t, func(t *testing.T) consumerstest.Source {
			return &Source{DSN: d.Server.DSN(d.Server.Database(t)), Connect: d.Connect}
		})
	})
	for name, test := range map[string]func(*testing.T, Database){
		"two instances":                twoInstances,
		"SQL of a person":              ownSQL,
		"a transaction that ends late": lateCommit,
		"rows that cannot be meant":    hostile,
		"many start at once":           manyStart,
		"a newer schema":               newerSchema,
		"settings":                     settings,
		"what no trigger saw":          unseen,
	} {
		t.Run(name, func(t *testing.T) { test(t, d) })
	}
	for name, test := range map[string]func(*testing.T, Database){ // one after the other
		"killed":  killed,
		"stalled": stalled,
	} {
		t.Run(name, func(t *testing.T) { test(t, d) })
	}
}

func (d Database) run(t *testing.T, database string, o sqlstore.Options) *Running {
	t.Helper()
	if o.Poll == 0 {
		o.Poll = 50 * time.Millisecond
	}
	r := Run(t, d.Connect, d.Server.DSN(database), o)
	r.Loaded(t)
	return r
}

// limit is the rate that a token's requests are under, 0 for one that is not valid.
func (r *Running) limit(secret string) int64 {
	g, standing := r.Registry.Resolve(limits.At(time.Now()), secret)
	if standing != consumers.Valid {
		return 0
	}
	if g.Len() == 0 {
		return -1
	}
	return g.Limiter(0).Spec().Limit().N
}

func (r *Running) eventually(t *testing.T, secret string, want int64) {
	t.Helper()
	Eventually(t, fmt.Sprintf("the limit of %s is %d", secret, want), func() bool { return r.limit(secret) == want })
}

func rate(n int64) consumers.Limits {
	return consumers.Limits{{Limit: limits.Limit{Kind: limits.Rate, N: n, Period: time.Second}}}
}

// add adds a consumer with a token of the same name.
func (d Database) add(t *testing.T, database, id string, n int) {
	t.Helper()
	d.Server.Exec(t, database, fmt.Sprintf("INSERT INTO tollgate_consumers (id, limits) VALUES ('%s', '%d/s'); INSERT INTO tollgate_tokens (consumer, id, sha256) VALUES ('%s', 't', %s);", id, n, id, d.Hash(id)))
}

func twoInstances(t *testing.T, d Database) {
	database := d.Server.Database(t)
	a, b := d.run(t, database, sqlstore.Options{}), d.run(t, database, sqlstore.Options{})
	put, err := a.Store.Put(t.Context(), consumers.Consumer{ID: "x", Limits: rate(3)}, consumers.IfAbsent)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Store.IssueToken(t.Context(), "x", consumers.Token{ID: "t", Hash: consumers.HashOf("secret")}); err != nil {
		t.Fatal(err)
	}
	if got := a.limit("secret"); got != 3 {
		t.Errorf("where it was issued, the token's limit is %d at once, want 3", got)
	}
	b.eventually(t, "secret", 3)
	_, err = b.Store.Put(t.Context(), consumers.Consumer{ID: "x", Limits: rate(4)}, consumers.Match(put.Version))
	if !errors.Is(err, consumers.ErrConflict) {
		t.Errorf("Put of a version before the other's change = %v, want ErrConflict", err)
	}
	var wg sync.WaitGroup
	results := make([]error, 8)
	read, err := a.Store.Consumer(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	for i := range results {
		wg.Go(func() {
			_, results[i] = []*Running{a, b}[i%2].Store.Put(context.WithoutCancel(t.Context()), consumers.Consumer{ID: "x", Limits: rate(int64(10 + i))}, consumers.Match(read.Version))
		})
	}
	wg.Wait()
	won := int64(0)
	for i, err := range results {
		switch {
		case err == nil && won == 0:
			won = int64(10 + i)
		case !errors.Is(err, consumers.ErrConflict):
			t.Errorf("change %d = %v, want one to win and ErrConflict for the others", i, err)
		}
	}
	a.eventually(t, "secret", won)
	b.eventually(t, "secret", won)
	if err := b.Store.RevokeToken(t.Context(), "x", "t"); err != nil {
		t.Fatal(err)
	}
	a.eventually(t, "secret", 0)
}

func ownSQL(t *testing.T, d Database) {
	database := d.Server.Database(t)
	r := d.run(t, database, sqlstore.Options{})
	d.add(t, database, "x", 3)
	r.eventually(t, "x", 3)
	version := func() uint64 {
		c, err := r.Store.Consumer(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		return c.Version
	}
	before := version()
	d.Server.Exec(t, database, "UPDATE tollgate_consumers SET limits = '[{\"rate\": \"7/s\", \"burst\": 20}]' WHERE id = 'x'")
	r.eventually(t, "x", 7)
	if version() == before {
		t.Error("SQL that changes a consumer leaves its version as it is")
	}
	d.Server.Exec(t, database, "UPDATE tollgate_consumers SET limits = 'none' WHERE id = 'x'")
	r.eventually(t, "x", -1)
	d.Server.Exec(t, database, "UPDATE tollgate_tokens SET expires = '2001-01-01' WHERE consumer = 'x'")
	r.eventually(t, "x", 0)
	d.Server.Exec(t, database, "UPDATE tollgate_tokens SET expires = NULL WHERE consumer = 'x'")
	r.eventually(t, "x", -1)
	d.Server.Exec(t, database, "UPDATE tollgate_consumers SET id = 'y', labels = '{\"team\": \"a\"}' WHERE id = 'x'")
	Eventually(t, "the consumer has another id", func() bool {
		g, _ := r.Registry.Resolve(limits.At(time.Now()), "x")
		_, old := r.Registry.Lookup("x")
		return !g.Nobody() && g.Consumer.ID == "y" && g.Consumer.Labels["team"] == "a" && !old
	})
	d.Server.Exec(t, database, "DELETE FROM tollgate_tokens WHERE consumer = 'y'")
	r.eventually(t, "x", 0)
	d.Server.Exec(t, database, "DELETE FROM tollgate_consumers WHERE id = 'y'")
	Eventually(t, "the consumer is gone", func() bool { _, ok := r.Registry.Lookup("y"); return !ok })
}

// lateCommit has a transaction whose changes got lower numbers than those of
// one that ended before.
func lateCommit(t *testing.T, d Database) {
	database := d.Server.Database(t)
	r := d.run(t, database, sqlstore.Options{FullPass: time.Hour})
	d.add(t, database, "early", 1)
	d.add(t, database, "late", 1)
	r.eventually(t, "late", 1)
	s := d.Server.Session(t, database)
	s.Send(t, "BEGIN; UPDATE tollgate_consumers SET limits = '9/s' WHERE id = 'late';")
	// Nothing tells from outside that the statement ran: it did when another
	// that waits for its row does not get it.
	Eventually(t, "the transaction holds the row", func() bool {
		return d.Server.client(database, "SELECT id FROM tollgate_consumers WHERE id = 'late' FOR UPDATE NOWAIT").Run() != nil
	})
	d.Server.Exec(t, database, "UPDATE tollgate_consumers SET limits = '5/s' WHERE id = 'early'")
	r.eventually(t, "early", 5)
	if got := r.limit("late"); got != 1 {
		t.Fatalf("before its transaction ends the limit is %d", got)
	}
	s.Send(t, "COMMIT;")
	s.Close(t)
	r.eventually(t, "late", 9)
}

// lines is a log to look into.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func hostile(t *testing.T, d Database) {
	database := d.Server.Database(t)
	log := new(lines)
	r := d.run(t, database, sqlstore.Options{Log: slog.New(slog.NewTextHandler(log, nil))})
	for _, id := range []string{"limits", "labels", "hash", "double", "plan", "good", "last"} {
		d.add(t, database, id, 3)
	}
	r.eventually(t, "last", 3)
	d.Server.Exec(t, database, d.Loosen)
	for _, statement := range []string{
		"UPDATE tollgate_consumers SET limits = '-5/s' WHERE id = 'limits'",
		"UPDATE tollgate_consumers SET limits = '9/s', labels = '[1]' WHERE id = 'labels'",
		"UPDATE tollgate_consumers SET limits = '9/s', plan = 'nowhere' WHERE id = 'plan'",
		"UPDATE tollgate_tokens SET sha256 = 'short' WHERE consumer = 'hash'",
		"UPDATE tollgate_tokens SET sha256 = " + d.Hash("good") + " WHERE consumer = 'double'",
		"INSERT INTO tollgate_consumers (id, limits) VALUES ('a/b', '3/s')",
		"UPDATE tollgate_consumers SET limits = '4/s' WHERE id = 'last'",
	} {
		d.Server.Exec(t, database, statement)
	}
	r.eventually(t, "last", 4)
	bad := []string{"limits", "labels", "hash", "double", "plan"}
	for _, id := range append(bad, "good") {
		if got := r.limit(id); got != 3 {
			t.Errorf("with a bad row the limit of %s is %d, want the last good one, 3", id, got)
		}
	}
	for _, id := range append(bad, "a/b") {
		Eventually(t, "the log names "+id, func() bool { return strings.Contains(log.String(), "consumer="+id+" ") })
	}
	if n := r.Store.Status().Bad; n != len(bad)+1 {
		t.Errorf("%d consumers are counted as unusable, want %d", n, len(bad)+1)
	}
	again := d.run(t, database, sqlstore.Options{}) // which knows nothing of before
	for _, id := range []string{"limits", "labels", "hash", "plan"} {
		if got := again.limit(id); got != 0 {
			t.Errorf("an instance that starts uses the bad row of %s", id)
		}
	}
	if again.limit("good") != 3 && again.limit("double") != 3 || again.limit("last") != 4 {
		t.Error("an instance that starts does not use the good rows")
	}
	d.Server.Exec(t, database, "UPDATE tollgate_consumers SET limits = '6/s' WHERE id = 'limits'")
	r.eventually(t, "limits", 6)
	d.Server.Exec(t, database, "UPDATE tollgate_tokens SET sha256 = "+d.Hash("other")+" WHERE consumer = 'good'")
	r.eventually(t, "other", 3)
	Eventually(t, "the secret goes to the other that has it", func() bool {
		g, _ := r.Registry.Resolve(limits.At(time.Now()), "good")
		return !g.Nobody() && g.Consumer.ID == "double"
	})
}

func manyStart(t *testing.T, d Database) {
	database := d.Server.Database(t)
	rs := make([]*Running, 6)
	for i := range rs {
		rs[i] = Run(t, d.Connect, d.Server.DSN(database), sqlstore.Options{Poll: 50 * time.Millisecond})
	}
	for i, r := range rs {
		Eventually(t, fmt.Sprintf("instance %d is up", i), func() bool { return r.Store.Status().Up })
	}
	d.add(t, database, "x", 3)
	for _, r := range rs {
		r.eventually(t, "x", 3)
	}
}

func newerSchema(t *testing.T, d Database) {
	database := d.Server.Database(t)
	d.run(t, database, sqlstore.Options{}).Stop(t)
	d.Server.Exec(t, database, fmt.Sprintf("INSERT INTO tollgate_schema (version) VALUES (%d)", d.Newest+1))
	r := Run(t, d.Connect, d.Server.DSN(database), sqlstore.Options{})
	err := r.Store.Started(t.Context())
	if !errors.Is(err, sqlstore.ErrUnusable) || !strings.Contains(err.Error(), "use a newer tollgate") {
		t.Errorf("with a newer schema the start says %v", err)
	}
}

func settings(t *testing.T, d Database) {
	database := d.Server.Database(t)
	told := make(chan struct{}, 100)
	a, b := d.run(t, database, sqlstore.Options{}), d.run(t, database, sqlstore.Options{Changed: func() { told <- struct{}{} }})
	<-told // loaded
	file := "enforce"
	if err := a.Store.PutSettings(t.Context(), sqlstore.Settings{"mode": {Value: "shadow", Configured: &file}}); err != nil {
		t.Fatal(err)
	}
	if got, ok := a.Store.Settings().Value("mode", file); !ok || got != "shadow" {
		t.Errorf("after its change the mode is %q, %v", got, ok)
	}
	if _, ok := a.Store.Settings().Value("mode", "off"); ok {
		t.Error("a changed mode counts although the file's is another since")
	}
	Eventually(t, "the other knows the mode", func() bool {
		got, _ := b.Store.Settings().Value("mode", file)
		return got == "shadow"
	})
	<-told
	d.Server.Exec(t, database, "UPDATE tollgate_settings SET value = 'off', configured = NULL WHERE name = 'mode'")
	Eventually(t, "SQL changes the mode", func() bool {
		got, _ := b.Store.Settings().Value("mode", "anything")
		return got == "off"
	})
	<-told
}

// unseen changes rows and takes back what the triggers noted.
func unseen(t *testing.T, d Database) {
	database := d.Server.Database(t)
	r := d.run(t, database, sqlstore.Options{Poll: time.Hour, FullPass: time.Hour})
	d.add(t, database, "stays", 1)
	d.add(t, database, "goes", 1)
	if err := r.Store.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.limit("stays") != 1 || r.limit("goes") != 1 {
		t.Fatal("Refresh returned before what it read was in force")
	}
	d.Server.Exec(t, database, "BEGIN; UPDATE tollgate_consumers SET limits = '2/s' WHERE id = 'stays'; DELETE FROM tollgate_consumers WHERE id = 'goes'; DELETE FROM tollgate_changes; COMMIT;")
	if err := r.Store.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.limit("stays") != 2 || r.limit("goes") != 0 {
		t.Errorf("after a comparison the limits are %d and %d, want 2 and 0", r.limit("stays"), r.limit("goes"))
	}
}

func killed(t *testing.T, d Database) {
	database := d.Server.Database(t)
	log := new(lines)
	r := d.run(t, database, sqlstore.Options{Log: slog.New(slog.NewTextHandler(log, nil))})
	d.add(t, database, "x", 3)
	r.eventually(t, "x", 3)
	d.Server.Kill(t)
	Eventually(t, "the source is down", func() bool { st := r.Store.Status(); return !st.Up && st.Err != nil })
	if got := r.limit("x"); got != 3 {
		t.Errorf("while the database is away the limit is %d, want 3", got)
	}
	_, err := r.Store.Put(t.Context(), consumers.Consumer{ID: "y"}, consumers.Always)
	if !errors.Is(err, consumers.ErrUnavailable) {
		t.Errorf("Put while the database is away = %v, want ErrUnavailable", err)
	}
	if err := r.Store.Refresh(t.Context()); err == nil {
		t.Error("Refresh while the database is away says that all is well")
	}
	waiting := Run(t, d.Connect, d.Server.DSN(database), sqlstore.Options{Poll: 50 * time.Millisecond, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err := waiting.Store.Started(t.Context()); err == nil || errors.Is(err, sqlstore.ErrUnusable) {
		t.Errorf("the start without a database = %v, want an error that passes", err)
	}
	Eventually(t, "some attempts failed", func() bool { return waiting.Store.Status().Errors >= 3 })
	d.Server.Start(t)
	d.Server.Exec(t, database, "UPDATE tollgate_consumers SET limits = '4/s' WHERE id = 'x'")
	r.eventually(t, "x", 4)
	waiting.eventually(t, "x", 4)
	Eventually(t, "the source is up", func() bool { return r.Store.Status().Up })
	d.Server.Exec(t, database, "UPDATE tollgate_consumers SET limits = '5/s' WHERE id = 'x'")
	r.eventually(t, "x", 5)
	if n := strings.Count(log.String(), "is down"); n != 2 {
		t.Errorf("%d lines tell that the source is down, want one of each instance:\n%s", n, log)
	}
	for _, secret := range []string{"s3cret", url.QueryEscape(d.Server.DSN(database))} {
		if strings.Contains(log.String(), secret) || strings.Contains(err.Error(), secret) {
			t.Errorf("the password is told:\n%s\n%v", log, err)
		}
	}
}

func stalled(t *testing.T, d Database) {
	database := d.Server.Database(t)
	r := d.run(t, database, sqlstore.Options{})
	d.add(t, database, "x", 3)
	r.eventually(t, "x", 3)
	d.Server.Stall(t)
	_, err := r.Store.Consumer(t.Context(), "x") // bounded, or the test hangs
	d.Server.Resume(t)
	if !errors.Is(err, consumers.ErrUnavailable) {
		t.Errorf("a call to a database that does not answer = %v, want ErrUnavailable", err)
	}
	d.Server.Exec(t, database, "UPDATE tollgate_consumers SET limits = '4/s' WHERE id = 'x'")
	r.eventually(t, "x", 4)
}
