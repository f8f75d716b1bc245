package endtoend_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/envoy/config"
	"github.com/tollgate-dev/tollgate/envoy/envoytest"
	"github.com/tollgate-dev/tollgate/internal/server"
	"github.com/tollgate-dev/tollgate/limits/redis/redistest"
)

var (
	faultFor    = flag.Duration("fault-for", 400*time.Millisecond, "how long each fault of the cluster's store lasts, and the time without one before it")
	faultRounds = flag.Int("fault-rounds", 1, "how often each happens")
	faultRate   = flag.Int("fault-rate", 400, "requests a second meanwhile")
)

const clusterConsumers = `
consumers:
  - {id: wide, limits: [{rate: 20000/s}], tokens: [{id: t, value: secret-of-wide}]}
  - {id: tight, limits: [{rate: 50/s, burst: 10}], tokens: [{id: t, value: secret-of-tight}]}
`

// shared is two Tollgates that share limits, and an Envoy that asks the first.
type shared struct {
	redis  *redistest.Server
	first  *server.Server
	client envoytest.Client
}

func newShared(t *testing.T, mode string) shared {
	t.Helper()
	s := shared{redis: redistest.Start(t)}
	for range 2 {
		dir := t.TempDir()
		path := filepath.Join(dir, "tollgate.yaml")
		text := fmt.Sprintf(`listen: {grpc: "unix:%s/gate.sock", http: "127.0.0.1:0", drain: 0s}
limits: {warm_up: {grace: 0s, ramp: 0s}}
consumers: {source: file, file: consumers.yaml}
cluster: {redis: {addresses: [%q]}, mode: %s, instances: 2}
`, dir, s.redis.Addr, mode)
		for name, text := range map[string]string{path: text, filepath.Join(dir, "consumers.yaml"): clusterConsumers} {
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		gate, err := server.Start(t.Context(), server.Options{ConfigPath: path, DataDir: filepath.Join(dir, "data"), Log: io.Discard})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = gate.Close() })
		if s.first == nil {
			s.first = gate
		}
	}
	var b bytes.Buffer
	err := config.Print(&b, config.Options{Mode: config.Fused, Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", Upstream: envoytest.StartUpstream(t).Addr,
		Tollgate: []string{s.first.GRPCAddr()}, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	e := envoytest.Start(t, envoytest.Binary(t), b.Bytes())
	s.client = envoytest.HTTP1(t, e.Addr("http"))
	return s
}

// metric returns the value of a metric of the first Tollgate.
func (s shared) metric(t *testing.T, name string) (value int64) {
	t.Helper()
	resp, err := http.Get("http://" + s.first.HTTPAddr() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), "\n"+name+" ")
	after, _, _ = strings.Cut(after, "\n")
	f, err := strconv.ParseFloat(after, 64)
	if !found || err != nil {
		t.Fatalf("metric %s: %q, %v", name, after, err)
	}
	return int64(f)
}

// askers is how many ask at once.
const askers = 8

// load is what came of asking for a while.
type load struct {
	took     []time.Duration // sorted
	admitted map[string]int
	lasted   time.Duration
}

// ask has both consumers ask at a fixed pace, the wide one three times in four.
func (s shared) ask(t *testing.T, lasting time.Duration) load {
	t.Helper()
	var mu sync.Mutex
	l := load{admitted: map[string]int{}}
	var wg sync.WaitGroup
	began := time.Now()
	for i := range askers {
		wg.Go(func() {
			who := "wide"
			if i%4 == 0 {
				who = "tight"
			}
			pace := time.NewTicker(time.Second * askers / time.Duration(*faultRate))
			defer pace.Stop()
			var mine []time.Duration
			admitted := 0
			for time.Since(began) < lasting {
				asked := time.Now()
				a, err := s.client.Try(context.Background(), "/", "x-api-key", "secret-of-"+who)
				mine = append(mine, time.Since(asked))
				switch {
				case err == nil && a.Status == http.StatusOK:
					admitted++
				case err != nil || a.Status != http.StatusTooManyRequests || who == "wide":
					t.Errorf("%s: HTTP %d, %q, %v", who, a.Status, a.Header.Get("x-tollgate-reason"), err)
				}
				<-pace.C
			}
			mu.Lock()
			defer mu.Unlock()
			l.took = append(l.took, mine...)
			l.admitted[who] += admitted
		})
	}
	wg.Wait()
	slices.Sort(l.took)
	l.lasted = time.Since(began)
	return l
}

func median(of []time.Duration) time.Duration {
	slices.Sort(of)
	return of[len(of)/2]
}

// TestFaultsOfTheStore has the store fail in every way while requests come through
// Envoy: none fails, what passes is within this instance's share, and the store is
// used again soon. While the store cannot be used, less than one request in a
// hundred waits for it, so that the slowest hundredth is as fast as before: that is
// what is asserted, since it can be on a busy machine too. For figures:
//
//	go test ./internal/endtoend -run FaultsOfTheStore -v -args -fault-for 5s -fault-rounds 5
func TestFaultsOfTheStore(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for _, mode := range []string{"leased", "strict"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := newShared(t, mode)
			s.ask(t, time.Second) // connections, leases
			for _, f := range redistest.Faults() {
				t.Run(f.Name, func(t *testing.T) { s.suffer(t, mode, f) })
			}
		})
	}
}

func (s shared) suffer(t *testing.T, mode string, f redistest.Fault) {
	within := func(l load, when string) {
		t.Helper()
		if n, most := float64(l.admitted["tight"]), 10+50*l.lasted.Seconds(); n > most*1.01 {
			t.Errorf("%.0f admitted of a limit of 50/s in %v %s", n, l.lasted, when)
		}
	}
	var without, with []time.Duration
	for range *faultRounds {
		without = append(without, p99(s.ask(t, *faultFor).took))
		f.Begin(s.redis)
		for mode == "strict" && f.Breaks && s.metric(t, "tollgate_cluster_up") == 1 { // until then a decision may take as long as a call
			s.ask(t, 50*time.Millisecond)
		}
		waited := s.metric(t, "tollgate_cluster_waits_total")
		l := s.ask(t, *faultFor)
		if waited = s.metric(t, "tollgate_cluster_waits_total") - waited; f.Breaks && waited > int64(len(l.took)/100+3*askers) { // all at once, and again where the machine is slow
			t.Errorf("%d of %d requests waited for the store", waited, len(l.took))
		}
		with = append(with, p99(l.took))
		within(l, "during the fault")
		f.End(s.redis)
		envoytest.Eventually(t, func() error {
			if s.metric(t, "tollgate_cluster_up") == 0 {
				return errors.New("the store is not used again")
			}
			return nil
		})
		within(s.ask(t, *faultFor/2), "after it: a burst")
	}
	a, b := median(without), median(with)
	t.Logf("%s, %s: p99 %v without and %v with it: %+.0f %%", mode, f.Name, a, b, 100*(b.Seconds()/a.Seconds()-1))
}
