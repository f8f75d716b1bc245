package endtoend_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/companion"
	"github.com/tollgate-dev/tollgate/descriptors/yamlfile"
	"github.com/tollgate-dev/tollgate/envoy/envoytest/throttle"
)

func yamlOptions() yamlfile.Options { return yamlfile.Options{Lookup: os.LookupEnv} }

// event tells the companion that a record has changed.
func event(t *testing.T, addr, hook, record string) {
	t.Helper()
	body := fmt.Sprintf(`{"audit_event":"record_update","record_uid":%q,"timestamp":%d,"n":%d}`, record, time.Now().Unix(), time.Now().UnixNano())
	if got := post(t, addr, hook, body); got != http.StatusAccepted {
		t.Errorf("POST = %d, want 202", got)
	}
}

func post(t *testing.T, addr, hook, body string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/webhooks/"+hook, strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return 0
	}
	req.Header.Set("authorization", "Bearer 0123456789abcdef")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// TestK19StormIsPaced: events for 1,000 external secrets, three for each,
// lead to one refresh each, at no moment more than the upstream allows.
func TestK19StormIsPaced(t *testing.T) {
	cl := root(t)
	const n, ns = 1000, "storm"
	create(t, cl, store(ns))
	var all []client.Object
	for i := range n {
		all = append(all, externalSecret(ns, fmt.Sprintf("es-%04d", i), nil, uid(i)))
	}
	createAll(t, cl, all)
	f := newFakeTollgate(t, ns)
	upstream := throttle.New(throttle.Options{Model: throttle.Sliding, N: 100, Window: time.Second})
	o := startOperator(t, ns, func(calls int) {
		for range calls {
			f.called(ns)
			upstream.Take(time.Now())
		}
	})
	addr, _ := runCompanion(t, t.TempDir(), configure(t, ns, f.URL, ""))
	f.freeze(ns, time.Now().Add(time.Hour), 1) // so that the whole storm comes before the first refresh
	var senders sync.WaitGroup
	for sender := range 10 {
		senders.Go(func() {
			for i := range 3 * n / 10 {
				event(t, addr, ns, uid((sender*n/10+i)%n))
			}
		})
	}
	senders.Wait()
	f.window(ns, 90, 1200*time.Millisecond)
	f.open(ns, 90)
	within(t, 2*time.Minute, "every external secret is refreshed", func() bool { objects, _ := o.counts(); return objects == n })
	if upstream.Throttled() != 0 {
		t.Errorf("%d of %d calls were throttled, want none", upstream.Throttled(), len(upstream.Calls()))
	}
	quiet(t, 3*time.Second, "one is annotated twice", func() bool { _, most := o.counts(); return most > 1 })
}

// TestK19TheLastEventCounts: an event that comes when its record was refreshed
// already leads to another refresh, and one that comes twice in the coalescing
// window does not.
func TestK19TheLastEventCounts(t *testing.T) {
	cl := root(t)
	const ns = "last"
	create(t, cl, store(ns), externalSecret(ns, "one", nil, uid(1)), externalSecret(ns, "other", nil, uid(2)))
	f := newFakeTollgate(t, ns)
	o := startOperator(t, ns, func(int) {})
	addr, _ := runCompanion(t, t.TempDir(), configure(t, ns, f.URL, "push: {coalesce: 1s}"))
	for round := 1; round <= 3; round++ {
		event(t, addr, ns, uid(1))
		event(t, addr, ns, uid(1))
		within(t, 30*time.Second, fmt.Sprintf("refresh %d", round), func() bool { _, most := o.counts(); return most == round })
	}
	if got := o.names(); got != "one" {
		t.Errorf("refreshed: %s, want one", got)
	}
}

// TestPushWaitsOutAPauseAndAKill: while paused nothing is annotated; what came
// meanwhile is not lost when the companion is killed, and goes out afterwards.
func TestPushWaitsOutAPauseAndAKill(t *testing.T) {
	cl := root(t)
	const ns = "pause"
	create(t, cl, store(ns), externalSecret(ns, "one", nil, uid(1)))
	f := newFakeTollgate(t, ns)
	f.freeze(ns, time.Now().Add(time.Hour), 1)
	o := startOperator(t, ns, func(int) {})
	dir := t.TempDir()
	addr, stop := runCompanion(t, dir, configure(t, ns, f.URL, "push: {coalesce: 100ms}"))
	event(t, addr, ns, uid(1))
	quiet(t, 2*time.Second, "an external secret was annotated in a pause", func() bool { n, _ := o.counts(); return n > 0 })
	stop()
	f.open(ns, 90)
	runCompanion(t, dir, configure(t, ns, f.URL, "push: {coalesce: 100ms}"))
	within(t, 30*time.Second, "the event of before is pushed", func() bool { n, _ := o.counts(); return n == 1 })
}

// quiet fails when something becomes so.
func quiet(t *testing.T, d time.Duration, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		if so() {
			t.Fatal(what)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// TestK21NetCatchesLostEvents: of 50 changes every tenth is not told; all are
// fresh within the net's period.
func TestK21NetCatchesLostEvents(t *testing.T) {
	cl := root(t)
	const n, ns = 50, "net"
	create(t, cl, store(ns))
	var all []client.Object
	for i := range n {
		all = append(all, externalSecret(ns, fmt.Sprintf("es-%02d", i), nil, uid(i)))
	}
	createAll(t, cl, all)
	f := newFakeTollgate(t, ns)
	f.window(ns, 90, time.Second)
	o := startOperator(t, ns, func(calls int) { f.called(ns) })
	const period = 8 * time.Second
	addr, _ := runCompanion(t, t.TempDir(), configure(t, ns, f.URL, "push: {coalesce: 200ms, net: 8s}"))
	began := time.Now()
	for i := range n {
		if i%10 != 0 {
			event(t, addr, ns, uid(i))
		}
	}
	within(t, period+5*time.Second, "all are fresh", func() bool { got, _ := o.counts(); return got == n })
	t.Logf("all fresh after %v", time.Since(began).Round(time.Second/10))
}

// TestK20StatusListsWhatCannotBeReached: exactly those that External Secrets
// would not refresh.
func TestK20StatusListsWhatCannotBeReached(t *testing.T) {
	cl := root(t)
	const ns = "unreachable"
	create(t, cl, store(ns),
		externalSecret(ns, "once", map[string]any{"refreshPolicy": "CreatedOnce"}, uid(1)),
		externalSecret(ns, "never", map[string]any{"refreshInterval": "0s"}, uid(1)),
		externalSecret(ns, "never-periodic", map[string]any{"refreshInterval": "0s", "refreshPolicy": "Periodic"}, uid(1)),
		externalSecret(ns, "on-change", map[string]any{"refreshInterval": "0s", "refreshPolicy": "OnChange"}, uid(1)),
		externalSecret(ns, "hourly", nil, uid(1)))
	f := newFakeTollgate(t, ns)
	o := startOperator(t, ns, func(int) {})
	c := configure(t, ns, f.URL, "push: {coalesce: 100ms}")
	one, _ := startCompanion(t, t.TempDir(), c)
	event(t, one.Addr(), ns, uid(1))
	within(t, 30*time.Second, "those that can be reached are", func() bool { n, _ := o.counts(); return n == 2 })
	if got := o.names(); !strings.Contains(got, "on-change") || !strings.Contains(got, "hourly") {
		t.Errorf("refreshed: %s, want on-change and hourly", got)
	}
	resp, err := http.Get("http://" + one.StatusAddr() + "/status")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got companion.Status
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	want := []companion.Unreachable{{Namespace: ns, Name: "never", Reason: "refreshInterval 0"},
		{Namespace: ns, Name: "never-periodic", Reason: "refreshInterval 0"}, {Namespace: ns, Name: "once", Reason: "refreshPolicy CreatedOnce"}}
	if diff := cmp.Diff(want, got.Unreachable); diff != "" {
		t.Errorf("unreachable (-want +got):\n%s", diff)
	}
	if s := got.Upstreams[0].Savings; s.Refreshes < 1 || s.Calls < s.Refreshes {
		t.Errorf("savings = %+v, want the refreshes that were seen", s)
	}
}
