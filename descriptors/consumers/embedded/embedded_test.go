package embedded_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/consumerstest"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/embedded"
	"github.com/tollgate-dev/tollgate/limits"
)

// source is a database file as the suite opens and closes it.
type source struct {
	path  string
	db    *embedded.DB
	table *limits.Table
}

func (s *source) Open(t *testing.T, r *consumers.Registry) consumers.Store {
	s.db = open(t, s.path)
	if err := s.db.Remember(r); err != nil {
		t.Fatal(err)
	}
	s.table = limits.NewTable(limits.TableOptions{})
	if err := s.db.RememberTable(s.table); err != nil {
		t.Fatal(err)
	}
	store, err := s.db.Consumers(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func (s *source) Close(t *testing.T) {
	if err := s.db.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
}

func open(t testing.TB, path string) *embedded.DB {
	t.Helper()
	db, err := embedded.Open(path, embedded.Options{
		Clock:  limits.NewClock(),
		Failed: func(err error) { t.Errorf("in the background: %v", err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func TestStore(t *testing.T) {
	consumerstest.RunStore(t, func(t *testing.T) consumerstest.Source {
		return &source{path: filepath.Join(t.TempDir(), "tollgate.db")}
	})
}

func TestSettings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tollgate.db")
	limit := func(s string) *consumers.Limits {
		var ls consumers.Limits
		if err := ls.UnmarshalJSON([]byte(s)); err != nil {
			t.Fatal(err)
		}
		return &ls
	}
	configured := embedded.Settings{Mode: "enforce", Default: limit(`"20/s"`)}
	db := open(t, path)
	check := func(when string, configured, want embedded.Settings) {
		t.Helper()
		got, err := db.Settings(configured)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	check("nothing changed", configured, embedded.Settings{})
	applied := 0
	for _, s := range []embedded.Settings{{Mode: "shadow"}, {Default: limit(`"none"`)}} {
		if err := db.PutSettings(t.Context(), s, configured, func() { applied++ }); err != nil {
			t.Fatal(err)
		}
	}
	if applied != 2 {
		t.Errorf("applied %d changes, want 2", applied)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, path)
	defer db.Close()
	check("changed", configured, embedded.Settings{Mode: "shadow", Default: limit(`"none"`)})
	check("the file's mode is another", embedded.Settings{Mode: "off", Default: limit(`"20/s"`)}, embedded.Settings{Default: limit(`"none"`)})
	check("the file's default is another", embedded.Settings{Mode: "enforce", Default: limit(`"30/s"`)}, embedded.Settings{Mode: "shadow"})
}

func TestSecondProcessIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tollgate.db")
	db := open(t, path)
	defer db.Close()
	_, err := embedded.Open(path, embedded.Options{Clock: limits.NewClock()})
	if err == nil || !strings.Contains(err.Error(), "another process has it open: stop the other tollgate") {
		t.Errorf("a second Open = %v, want to be told", err)
	}
}

// TestDamagedFile damages a file in several ways: opening or reading it says
// what to do, and nothing panics.
func TestDamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tollgate.db")
	s := &source{path: path}
	store := s.Open(t, consumers.NewRegistry(consumers.RegistryOptions{}))
	for i := range 500 {
		c := consumers.Consumer{ID: fmt.Sprint("consumer-", i), Labels: map[string]string{"marker": fmt.Sprint("value-", i)}}
		if _, err := store.Put(t.Context(), c, consumers.Always); err != nil {
			t.Fatal(err)
		}
	}
	s.Close(t)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func(b []byte) []byte{
		"another kind of file": func([]byte) []byte { return bytes.Repeat([]byte("not a database\n"), 1000) },
		"cut in half":          func(b []byte) []byte { return b[:len(b)/2/4096*4096] },
		"cut to its head":      func(b []byte) []byte { return b[:8192] },
		"both heads gone":      func(b []byte) []byte { clear(b[:8192]); return b },
		"pages gone":           func(b []byte) []byte { clear(b[8192:]); return b },
		"a value changed":      func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("value-77"), []byte("value-78")) },
	} {
		t.Run(name, func(t *testing.T) {
			bad := filepath.Join(t.TempDir(), "bad.db")
			if err := os.WriteFile(bad, damage(bytes.Clone(good)), 0o600); err != nil {
				t.Fatal(err)
			}
			db, err := embedded.Open(bad, embedded.Options{Clock: limits.NewClock()})
			if err == nil {
				_, err = db.Consumers(consumers.NewRegistry(consumers.RegistryOptions{}), nil)
				defer db.Close()
			}
			if err == nil || !strings.Contains(err.Error(), "damaged") || !strings.Contains(err.Error(), "backup") {
				t.Errorf("got %v, want to be told that it is damaged and to take a backup", err)
			}
		})
	}
}

// limited is a consumer with a yearly quota and a token.
func limited(t *testing.T, s consumers.Store, quota int) {
	t.Helper()
	var ls consumers.Limits
	if err := ls.UnmarshalJSON(fmt.Appendf(nil, `[{"quota":"%d/year"}]`, quota)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), consumers.Consumer{ID: "a", Limits: ls}, consumers.Always); err != nil {
		t.Fatal(err)
	}
	if err := s.IssueToken(t.Context(), "a", consumers.Token{ID: "t", Hash: consumers.HashOf("s")}); err != nil {
		t.Fatal(err)
	}
}

func remaining(t *testing.T, r *consumers.Registry) int64 {
	t.Helper()
	u, ok := r.Usage(limits.At(time.Now()), "a")
	if !ok || len(u) != 1 {
		t.Fatalf("Usage = %v, %v", u, ok)
	}
	return u[0].Remaining
}

// TestQuotaSurvivesAnOrderlyStop loses nothing and counts nothing twice.
func TestQuotaSurvivesAnOrderlyStop(t *testing.T) {
	s := &source{path: filepath.Join(t.TempDir(), "tollgate.db")}
	r := consumers.NewRegistry(consumers.RegistryOptions{})
	limited(t, s.Open(t, r), 1000)
	used := int64(0)
	for round := range 5 {
		for range 7 {
			now := limits.At(time.Now())
			g, _ := r.Resolve(now, "s")
			if !g.Limiter(0).Take(now, 1).Allowed || !ruleLimiter(t, s.table, now).Take(now, 1).Allowed {
				t.Fatal("refused")
			}
			used++
		}
		s.Close(t)
		r = consumers.NewRegistry(consumers.RegistryOptions{})
		s.Open(t, r)
		now := limits.At(time.Now())
		if got := ruleLimiter(t, s.table, now).Peek(now, 1).Remaining; got != quotaOfKilled-used {
			t.Fatalf("after restart %d %d remain of the rule's, want %d", round, got, quotaOfKilled-used)
		}
		if got := remaining(t, r); got != 1000-used {
			t.Fatalf("after restart %d %d remain, want %d", round, got, 1000-used)
		}
	}
	s.Close(t)
}

// TestKill kills a process that changes the file as fast as it can. All that it
// was told to be done is there; of the quota at most what was used in the last
// second before the kill is missing.
func TestKill(t *testing.T) {
	if path := os.Getenv("TOLLGATE_TEST_KILL"); path != "" {
		beKilled(t, path)
		return
	}
	for round := range 3 {
		path := filepath.Join(t.TempDir(), "tollgate.db")
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$", "-test.v")
		cmd.Env = append(os.Environ(), "TOLLGATE_TEST_KILL="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		put, flushed := 0, int64(0)
		lines := bufio.NewScanner(out)
		for lines.Scan() && put < 200+round*37 {
			fmt.Sscanf(lines.Text(), "put %d", &put)
			fmt.Sscanf(lines.Text(), "flushed %d", &flushed)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // what it said before it died
			fmt.Sscanf(lines.Text(), "put %d", &put)
			fmt.Sscanf(lines.Text(), "flushed %d", &flushed)
		}
		cmd.Wait() // an error: it was killed
		s := &source{path: path}
		r := consumers.NewRegistry(consumers.RegistryOptions{})
		store := s.Open(t, r)
		for i := 1; i <= put; i++ {
			id := fmt.Sprint("c", i)
			if _, err := store.Consumer(t.Context(), id); err != nil {
				t.Errorf("acknowledged, then killed: %v", err)
			}
			if _, standing := r.Resolve(limits.At(time.Now()), "secret-"+id); standing != consumers.Valid {
				t.Errorf("the token of %s was acknowledged and is %v", id, standing)
			}
		}
		if got := 1000 - remaining(t, r); got < flushed || put == 0 || flushed == 0 {
			t.Errorf("%d of the quota are used, want at least the %d that were on disk; %d consumers", got, flushed, put)
		}
		s.Close(t)
	}
}

// beKilled tells what is durable until it is killed.
func beKilled(t *testing.T, path string) {
	s := &source{path: path}
	r := consumers.NewRegistry(consumers.RegistryOptions{})
	store := s.Open(t, r)
	limited(t, store, 1000)
	for i := 1; i < 100_000; i++ {
		c := consumers.Consumer{ID: fmt.Sprint("c", i)}
		if _, err := store.Put(t.Context(), c, consumers.Always); err != nil {
			t.Fatal(err)
		}
		if err := store.IssueToken(t.Context(), c.ID, consumers.Token{ID: "t", Hash: consumers.HashOf("secret-" + c.ID)}); err != nil {
			t.Fatal(err)
		}
		fmt.Println("put", i)
		if i%20 == 0 {
			now := limits.At(time.Now())
			g, _ := r.Resolve(now, "s")
			g.Limiter(0).Take(now, 1)
			if err := s.db.Flush(); err != nil {
				t.Fatal(err)
			}
			fmt.Println("flushed", i/20)
		}
	}
}

// TestASecondOfAQuotaMayBeLost copies the file, as a kill would leave it, at
// moments at which nobody asked for anything to be written: all that was used more
// than a second before is there, and nothing that was not used.
func TestASecondOfAQuotaMayBeLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{path: filepath.Join(t.TempDir(), "tollgate.db")}
		r := consumers.NewRegistry(consumers.RegistryOptions{})
		limited(t, s.Open(t, r), quotaOfKilled)
		used := []int64{0} // by the end of each step
		const step = 70 * time.Millisecond
		for range 60 {
			for range 3 {
				take(t, r, s.table)
			}
			used = append(used, used[len(used)-1]+3)
			time.Sleep(step)
			synctest.Wait()
			data, err := os.ReadFile(s.path)
			if err != nil {
				t.Fatal(err)
			}
			kept := &source{path: filepath.Join(t.TempDir(), "tollgate.db")}
			if err := os.WriteFile(kept.path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			most := used[len(used)-1]
			least := used[max(0, len(used)-1-int(time.Second/step))]
			for what, got := range kept.used(t) {
				if got < least || got > most {
					t.Errorf("after %d steps %d are used of %s, want %d, which are a second old, to %d", len(used)-1, got, what, least, most)
				}
			}
		}
		s.Close(t)
	})
}

// used opens the file and returns what is used of the quotas in it.
func (s *source) used(t *testing.T) map[string]int64 {
	t.Helper()
	r := consumers.NewRegistry(consumers.RegistryOptions{})
	s.Open(t, r)
	defer s.Close(t)
	now := limits.At(time.Now())
	return map[string]int64{
		"the consumer's": quotaOfKilled - remaining(t, r),
		"the rule's":     quotaOfKilled - ruleLimiter(t, s.table, now).Peek(now, 1).Remaining,
	}
}

// take takes one of the consumer's quota and one of the rule's.
func take(t *testing.T, r *consumers.Registry, table *limits.Table) {
	t.Helper()
	now := limits.At(time.Now())
	g, _ := r.Resolve(now, "s")
	if !g.Limiter(0).Take(now, 1).Allowed || !ruleLimiter(t, table, now).Take(now, 1).Allowed {
		t.Fatal("refused")
	}
}

// TestDecisionsDoNotWaitForChanges: a disk that takes its time keeps a change from
// being made, and nobody else from anything.
func TestDecisionsDoNotWaitForChanges(t *testing.T) {
	s := &source{path: filepath.Join(t.TempDir(), "tollgate.db")}
	r := consumers.NewRegistry(consumers.RegistryOptions{})
	store := s.Open(t, r)
	defer s.Close(t)
	limited(t, store, quotaOfKilled)
	letGo := s.db.Hold(t)
	changed := make(chan error, 1)
	go func() {
		_, err := store.Put(context.Background(), consumers.Consumer{ID: "b"}, consumers.Always)
		changed <- err
	}()
	for range 1000 {
		take(t, r, s.table)
	}
	if _, known := r.Lookup("b"); known || len(changed) > 0 {
		t.Error("a change is in force that is not on disk")
	}
	letGo()
	if err := <-changed; err != nil {
		t.Error(err)
	}
	if _, known := r.Lookup("b"); !known {
		t.Error("a change that was made is not in force")
	}
}

// TestKillInUseOfAQuota kills a process that uses a quota and never asks for
// anything to be written: some of what it used is there, and nothing else.
func TestKillInUseOfAQuota(t *testing.T) {
	if path := os.Getenv("TOLLGATE_TEST_KILL_QUOTA"); path != "" {
		useQuota(t, path)
		return
	}
	if testing.Short() {
		t.Skip("takes the seconds that it is about")
	}
	s := &source{path: filepath.Join(t.TempDir(), "tollgate.db")}
	before := map[string]int64{}
	for round := range 3 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKillInUseOfAQuota$", "-test.v")
		cmd.Env = append(os.Environ(), "TOLLGATE_TEST_KILL_QUOTA="+s.path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		told, written := int64(0), 0
		var last time.Time // that it was written
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if lines.Text() != "took" {
				continue
			}
			told++
			file, err := os.Stat(s.path)
			if err != nil {
				t.Fatal(err)
			}
			if at := file.ModTime(); told == 1 {
				last = at
			} else if at.Sub(last) > 200*time.Millisecond { // it is written every half second
				written, last = written+1, at
			}
			if written == 3+round%2 { // so that the first is whole
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		cmd.Wait() // an error: it was killed
		for what, got := range s.used(t) {
			// One more may have been taken that it did not come to tell of.
			if most := before[what] + told + 1; got <= before[what] || got > most {
				t.Errorf("round %d: %d are used of %s, want more than %d and at most %d", round, got, what, before[what], most)
			}
			t.Logf("round %d: %d of %d used are kept of %s", round, got-before[what], told, what)
			before[what] = got
		}
	}
}

const quotaOfKilled = 1_000_000

// useQuota tells of each request that it takes, until it is killed.
func useQuota(t *testing.T, path string) {
	s := &source{path: path}
	r := consumers.NewRegistry(consumers.RegistryOptions{})
	store := s.Open(t, r)
	if _, standing := r.Resolve(limits.At(time.Now()), "s"); standing != consumers.Valid {
		limited(t, store, quotaOfKilled)
	}
	tick := time.NewTicker(time.Millisecond)
	for range tick.C {
		take(t, r, s.table)
		fmt.Println("took")
	}
}

// ruleLimiter is the limiter of a rule that counts by the year.
func ruleLimiter(t *testing.T, tab *limits.Table, now limits.Time) *limits.Limiter {
	t.Helper()
	spec, err := limits.Compile(limits.Limit{Kind: limits.FixedWindow, N: quotaOfKilled, Period: 365 * 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return tab.LimiterString(now, "a rule's key", spec)
}
