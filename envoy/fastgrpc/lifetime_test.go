package fastgrpc_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/tollgate-dev/tollgate/envoy/fastgrpc"
)

func TestKeepalive(t *testing.T) {
	opts := fastgrpc.Options{KeepaliveTime: time.Minute, KeepaliveTimeout: 20 * time.Second}
	inBubble(t, opts, func(t *testing.T, _ *fastgrpc.Server, l *pipeListener, _ *service) {
		p := greet(t, l.dial())
		if got := p.until(isPing(false)); got != time.Minute {
			t.Errorf("first PING after %v of silence, want 1m", got)
		}
		time.Sleep(19 * time.Second)
		p.must(p.fr.WritePing(true, [8]byte{}))
		if got := p.until(isPing(false)); got != time.Minute {
			t.Errorf("second PING after %v of silence, want 1m", got)
		}
		if got := p.untilClosed(); got != 20*time.Second {
			t.Errorf("closed %v after an unanswered PING, want 20s", got)
		}
	})
}

func TestHandshakeTimeout(t *testing.T) {
	opts := fastgrpc.Options{HandshakeTimeout: 3 * time.Second}
	inBubble(t, opts, func(t *testing.T, _ *fastgrpc.Server, l *pipeListener, _ *service) {
		p := &peer{t: t, nc: l.dial()}
		p.fr = http2.NewFramer(p.nc, p.nc)
		if got := p.untilClosed(); got != 3*time.Second {
			t.Errorf("silent connection closed after %v, want 3s", got)
		}
		p = &peer{t: t, nc: l.dial()}
		p.fr = http2.NewFramer(p.nc, p.nc)
		time.Sleep(2 * time.Second)
		p.write([]byte(http2.ClientPreface))
		if got := p.untilClosed(); got != time.Second {
			t.Errorf("connection without SETTINGS closed after %v more, want 1s", got)
		}
	})
}

func TestStreamTimeouts(t *testing.T) {
	opts := fastgrpc.Options{StreamTimeout: 10 * time.Second}
	inBubble(t, opts, func(t *testing.T, _ *fastgrpc.Server, l *pipeListener, _ *service) {
		p := greet(t, l.dial(), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 7})
		p.headers(1, false, request(echo)...)                          // never becomes complete
		p.headers(3, false, request(echo, "grpc-timeout", "2500m")...) // nor does this
		p.call(5, repeat, "", "size", "100")                           // its answer is never taken
		start := time.Now()
		want := reply{HTTP: "200", Status: "4", Message: "the request did not become complete in time"}
		if diff := cmp.Diff(want, p.reply(3)); diff != "" {
			t.Errorf("reply to the incomplete request with a deadline differs (-want +got):\n%s", diff)
		}
		if took := time.Since(start); took < 2500*time.Millisecond || took > 4*time.Second {
			t.Errorf("deadline of 2.5s noticed after %v", took)
		}
		ended := map[uint32]reply{}
		p.until(func(f http2.Frame) bool {
			id := f.Header().StreamID
			r := ended[id]
			r.take(f, id)
			ended[id] = r
			return ended[1].Status != "" && ended[5].Reset != 0
		})
		if took := time.Since(start); took < 10*time.Second || took > 12*time.Second {
			t.Errorf("streams given up after %v, want 10s", took)
		}
		if ended[1] != want || ended[5].Reset != http2.ErrCodeCancel {
			t.Errorf("given up as %v and %v, want DEADLINE_EXCEEDED and CANCEL", ended[1], ended[5])
		}
	})
}

// Connections retire at an age of their own; what is open then is answered,
// and no call falls between the two GOAWAYs.
func TestConnectionAge(t *testing.T) {
	opts := fastgrpc.Options{MaxConnectionAge: time.Hour, KeepaliveTime: 24 * time.Hour}
	inBubble(t, opts, func(t *testing.T, _ *fastgrpc.Server, l *pipeListener, s *service) {
		ages := map[time.Duration]bool{}
		for range 5 {
			p := greet(t, l.dial())
			p.call(1, wait, "held")
			age := p.until(isGoAway(1<<31-1, http2.ErrCodeNo))
			if age < 54*time.Minute || age > 66*time.Minute {
				t.Errorf("connection retired after %v, want 1h, 10%% more or less", age)
			}
			ages[age] = true
			p.call(3, echo, "was under way") // sent before the GOAWAY was read
			if got := p.reply(3); got != ok("was under way") {
				t.Errorf("call between the GOAWAYs = %v, want ok", got)
			}
			p.must(p.fr.WritePing(true, [8]byte{'d', 'r', 'a', 'i', 'n'}))
			if got := p.until(isGoAway(3, http2.ErrCodeNo)); got != 0 {
				t.Errorf("second GOAWAY %v after the answer to the PING, want at once", got)
			}
			p.call(5, echo, "too late")
			time.Sleep(5 * time.Hour) // without a grace that was set, as long as it takes
			s.letGo <- struct{}{}
			if got := p.reply(1); got != ok("held") {
				t.Errorf("held call = %v, want ok", got)
			}
			// A pipe has no half to close: it is left open for as long as a client has to read on.
			if got := p.untilClosed(); got > 5*time.Second {
				t.Errorf("closed %v after the last answer, want at once", got)
			}
		}
		if len(ages) < 2 {
			t.Error("all connections retired at the same age, want jitter")
		}
	})
}

func TestConnectionAgeGrace(t *testing.T) {
	opts := fastgrpc.Options{MaxConnectionAge: time.Minute, MaxConnectionAgeGrace: 30 * time.Second, KeepaliveTime: time.Hour}
	inBubble(t, opts, func(t *testing.T, _ *fastgrpc.Server, l *pipeListener, s *service) {
		p := greet(t, l.dial())
		p.call(1, wait, "held")
		p.until(isGoAway(1<<31-1, http2.ErrCodeNo))
		if got := p.untilClosed(); got != 30*time.Second {
			t.Errorf("closed %v after the first GOAWAY, want 30s", got)
		}
		if err := <-s.ended; !errors.Is(err, context.Canceled) {
			t.Errorf("held call's context ended with %v, want Canceled", err)
		}
	})
}

func TestShutdownWaitsForHeldCalls(t *testing.T) {
	inBubble(t, fastgrpc.Options{}, func(t *testing.T, server *fastgrpc.Server, l *pipeListener, s *service) {
		p := greet(t, l.dial())
		p.call(1, wait, "held")
		synctest.Wait()
		down := make(chan error, 1)
		go func() { down <- server.Shutdown(t.Context()) }()
		p.until(isGoAway(1<<31-1, http2.ErrCodeNo))
		if got := p.until(isGoAway(1, http2.ErrCodeNo)); got != 5*time.Second {
			t.Errorf("second GOAWAY %v after the first, though no PING was answered; want 5s", got)
		}
		select {
		case err := <-down:
			t.Fatalf("Shutdown() = %v while a call is held", err)
		default:
		}
		s.letGo <- struct{}{}
		if got := p.reply(1); got != ok("held") {
			t.Errorf("held call = %v, want ok", got)
		}
		p.must(p.nc.Close())
		if err := <-down; err != nil {
			t.Errorf("Shutdown() = %v, want nil", err)
		}
	})
}

func TestShutdownGivesUp(t *testing.T) {
	inBubble(t, fastgrpc.Options{}, func(t *testing.T, server *fastgrpc.Server, l *pipeListener, s *service) {
		p := greet(t, l.dial())
		p.call(1, wait, "held")
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
		defer cancel()
		start := time.Now()
		if err := server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown() = %v, want its context's error", err)
		}
		if took := time.Since(start); took != 7*time.Second {
			t.Errorf("Shutdown took %v, want 7s", took)
		}
		if err := <-s.ended; !errors.Is(err, context.Canceled) {
			t.Errorf("held call's context ended with %v, want Canceled", err)
		}
	})
}

// A held call ends with its deadline, with its stream, or with its connection.
func TestHeldCallsEnd(t *testing.T) {
	inBubble(t, fastgrpc.Options{}, func(t *testing.T, server *fastgrpc.Server, l *pipeListener, s *service) {
		p := greet(t, l.dial())
		p.call(1, wait, "x", "grpc-timeout", "250m")
		start := time.Now()
		if got := p.reply(1); got.Status != "1" || got.Message != "context deadline exceeded" {
			t.Errorf("call with a deadline = %v, want its context's error", got)
		}
		if took := time.Since(start); took != 250*time.Millisecond {
			t.Errorf("deadline came after %v, want 250ms", took)
		}
		if err := <-s.ended; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("context ended with %v, want DeadlineExceeded", err)
		}
		p.call(3, wait, "x")
		p.must(p.fr.WriteRSTStream(3, http2.ErrCodeCancel))
		if err := <-s.ended; !errors.Is(err, context.Canceled) {
			t.Errorf("context of a reset call ended with %v, want Canceled", err)
		}
		p.call(5, wait, "x")
		synctest.Wait()
		p.must(p.nc.Close())
		if err := <-s.ended; !errors.Is(err, context.Canceled) {
			t.Errorf("context of a lost connection's call ended with %v, want Canceled", err)
		}
		synctest.Wait()
		if got := server.Stats(); got.Connections != 0 || got.Waiting != 0 {
			t.Errorf("Stats() = %+v, want nothing left", got)
		}
	})
}

// One held call holds up nobody, and is answered as soon as it is let go.
func TestHeldCallsHoldUpNobody(t *testing.T) {
	inBubble(t, fastgrpc.Options{}, func(t *testing.T, _ *fastgrpc.Server, l *pipeListener, s *service) {
		p := greet(t, l.dial())
		for i := range uint32(100) {
			p.call(4*i+1, wait, "held")
			p.call(4*i+3, echo, "quick")
			if got := p.reply(4*i + 3); got != ok("quick") {
				t.Fatalf("call beside %d held ones = %v, want ok", i+1, got)
			}
		}
		start := time.Now()
		for range 100 {
			s.letGo <- struct{}{}
		}
		for left := 100; left > 0; {
			p.until(func(f http2.Frame) bool {
				h, isHeaders := f.(*http2.MetaHeadersFrame)
				return isHeaders && h.StreamEnded()
			})
			left--
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("answers took %v after being let go, want none", took)
		}
	})
}

// All that was read at once is answered in one write.
func TestOneWriteForAllThatWasRead(t *testing.T) {
	inBubble(t, fastgrpc.Options{}, func(t *testing.T, _ *fastgrpc.Server, l *pipeListener, _ *service) {
		p := greet(t, l.dial())
		synctest.Wait()
		before := l.writes.Load()
		const calls = 200 // in fewer bytes than are read at once
		var together bytes.Buffer
		fr := p.fr
		p.fr = http2.NewFramer(&together, nil)
		for i := range uint32(calls) {
			p.call(2*i+1, echo, "quick")
		}
		p.fr = fr
		p.write(together.Bytes())
		for answered := 0; answered < calls; answered++ {
			p.until(func(f http2.Frame) bool {
				h, isHeaders := f.(*http2.MetaHeadersFrame)
				return isHeaders && h.StreamEnded()
			})
		}
		if got := l.writes.Load() - before; got != 1 {
			t.Errorf("%d writes for %d calls that came together, want 1", got, calls)
		}
	})
}

// Calls that were read from a client who cannot be answered any more are not
// decided: what they took would be lost.
func TestCallsOfWhoIsGoneAreNotDecided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var decided atomic.Int64
		l := newPipeListener()
		server := fastgrpc.New(fastgrpc.Options{Methods: map[string]fastgrpc.Handler{
			repeat: fastgrpc.HandlerFunc(func(_ *fastgrpc.Call, _, response []byte) ([]byte, fastgrpc.Status) {
				decided.Add(1)
				return append(response, make([]byte, 10_000)...), fastgrpc.Status{}
			}),
		}})
		served := make(chan error, 1)
		go func() { served <- server.Serve(l) }()
		client, connection := net.Pipe()
		l.conns <- connection
		greeted := make(chan struct{})
		go func() { // the server's SETTINGS, its window, and its answer to the client's SETTINGS
			fr := http2.NewFramer(nil, client)
			for range 3 {
				if _, err := fr.ReadFrame(); err != nil {
					t.Error(err)
				}
			}
			close(greeted)
		}()
		p := greet(t, client)
		<-greeted
		var together bytes.Buffer
		p.fr = http2.NewFramer(&together, nil)
		p.must(p.fr.WriteWindowUpdate(0, 1<<20))
		const calls = 50
		for i := range uint32(calls) {
			p.call(2*i+1, repeat, "")
		}
		p.write(together.Bytes())
		synctest.Wait() // the server writes the first answers, which nobody reads
		p.must(client.Close())
		server.Close()
		<-served
		if got := decided.Load(); got < 1 || got > 10 {
			t.Errorf("%d of %d calls were decided, want only those of the answers that were to be written at once", got, calls)
		}
	})
}
