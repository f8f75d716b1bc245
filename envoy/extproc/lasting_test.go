package extproc_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tollgate-dev/tollgate/envoy"
	"github.com/tollgate-dev/tollgate/envoy/envoytest"
	"github.com/tollgate-dev/tollgate/envoy/extproc"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
)

// TestStreamsGoOn: an answer that never ends arrives piece by piece.
func TestStreamsGoOn(t *testing.T) {
	next := make(chan struct{})
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for {
			_, _ = io.WriteString(w, "event\n")
			w.(http.Flusher).Flush()
			select {
			case <-next:
			case <-r.Context().Done():
				return
			}
		}
	}))
	t.Cleanup(upstream.Close)
	registry, clock := keeper(t)
	addr := start(t, envoytest.Binary(t), upstream.Listener.Addr().String(), extproc.New(extproc.Options{Upstreams: registry, Clock: clock}))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("x-upstream", "keeper")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for range 3 {
		if line, err := lines.ReadString('\n'); err != nil || line != "event\n" {
			t.Fatalf("read %q, %v", line, err)
		}
		next <- struct{}{}
	}
	if s := registry.ByID("keeper").Status(clock.Now()); s.State != upstreams.Open || s.Counts.Taken != 1 {
		t.Errorf("%s, %+v, want the answer seen when it began", s.State, s.Counts)
	}
}

// TestWebSocket: a connection that changes its protocol goes through.
func TestWebSocket(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + r.Header.Get("Upgrade") + "\r\n\r\n")
		_ = rw.Flush()
		line, _ := rw.ReadString('\n')
		_, _ = rw.WriteString("you said " + line)
		_ = rw.Flush()
	}))
	t.Cleanup(upstream.Close)
	registry, clock := keeper(t)
	addr := start(t, envoytest.Binary(t), upstream.Listener.Addr().String(), extproc.New(extproc.Options{Upstreams: registry, Clock: clock}))
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a.keeper.example\r\nx-upstream: keeper\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%+v, %v, want 101", resp, err)
	}
	if _, err := io.WriteString(conn, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := r.ReadString('\n'); line != "you said hello\n" {
		t.Errorf("read %q, %v", line, err)
	}
}

// TestDrainFinishesWhatBegan: an answer of which the body is under way is seen
// although the server ends meanwhile.
func TestDrainFinishesWhatBegan(t *testing.T) {
	registry, clock := keeper(t)
	s, err := envoy.NewServer(envoy.ServerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	extprocv3.RegisterExternalProcessorServer(s, extproc.New(extproc.Options{Upstreams: registry, Clock: clock}))
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:///"+lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := extprocv3.NewExternalProcessorClient(conn).Process(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(headers("keeper", false, ":status", "403")); err != nil {
		t.Fatal(err)
	}
	if r, err := stream.Recv(); err != nil || r.GetModeOverride() == nil {
		t.Fatalf("%v, %v, want to be asked for the body", r, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	drained := make(chan error, 1)
	go func() { drained <- s.Drain(ctx) }()
	envoytest.Eventually(t, func() error {
		c, err := net.Dial("tcp", lis.Addr().String())
		if err == nil {
			_ = c.Close()
			return fmt.Errorf("still takes connections")
		}
		return nil
	})
	if err := stream.Send(body(throttled)); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("Recv = %v, want a good end", err)
	}
	if st := registry.ByID("keeper").Status(clock.Now()).State; st != upstreams.Frozen {
		t.Errorf("%s, want frozen", st)
	}
	if err := <-drained; err != nil {
		t.Errorf("Drain: %v", err)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}
