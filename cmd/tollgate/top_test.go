package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/internal/admin"
	"github.com/tollgate-dev/tollgate/internal/server"
)

// terminal is a tmux of its own.
type terminal struct {
	t      *testing.T
	socket string
}

// newTerminal runs a shell at 80x24 in which $SERVER is set.
func newTerminal(t *testing.T, address string) terminal {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("NOT TESTED in a terminal: tmux is missing: apt-get install tmux")
	}
	dir, err := os.MkdirTemp("", "top") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	term := terminal{t, dir + "/tmux"}
	t.Cleanup(func() {
		_ = exec.Command("tmux", "-S", term.socket, "kill-server").Run() // it may have ended
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	term.tmux("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24",
		"env", "PS1=ready> ", "NO_COLOR=", "TOLLGATE_SERVER="+address, "sh")
	return term
}

func (t terminal) tmux(args ...string) string {
	t.t.Helper()
	out, err := exec.Command("tmux", append([]string{"-S", t.socket}, args...)...).CombinedOutput()
	if err != nil {
		t.t.Fatalf("tmux %q: %v: %s", args, err, out)
	}
	return strings.TrimRight(string(out), "\n")
}

func (t terminal) screen() string { t.t.Helper(); return t.tmux("capture-pane", "-p") }

// await waits until the screen matches, and returns it.
func (t terminal) await(pattern string) string {
	t.t.Helper()
	re, screen := regexp.MustCompile(pattern), ""
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-tick.C {
		if screen = t.screen(); re.MatchString(screen) {
			return screen
		}
	}
	t.t.Fatalf("the screen does not show %s:\n%s", pattern, screen)
	return ""
}

// state is whether the alternate screen, the cursor and wrapping are on.
func (t terminal) state() string {
	t.t.Helper()
	return t.tmux("display-message", "-p", "#{alternate_on} #{cursor_flag} #{wrap_flag}")
}

// TestTopInATerminal: live, sorted, at any size, and the terminal is as it was.
func TestTopInATerminal(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	s, address, ask := serveForTop(t)
	term := newTerminal(t, address)
	term.await("ready>")
	term.tmux("send-keys", "echo before; tollgate top --every 100ms", "Enter")
	screen := term.await(`(?m)^CONSUMER .*ADMITTED/S .*REFUSED/S +ADMITTED +REFUSED$\n^busy .* 3 +0$\n^greedy .* 1 +1$`)
	if term.state() != "1 0 0" || strings.Contains(screen, "before") {
		t.Errorf("live, the terminal is in state %s:\n%s", term.state(), screen)
	}
	if !strings.Contains(screen, "tollgate top  "+address+"  mode enforce  default 20/s  by admitted") {
		t.Errorf("the head is missing:\n%s", screen)
	}
	ask("greedy", 5)
	term.await(`(?m)^greedy .* 1 +6$`)
	term.tmux("send-keys", "r")
	term.await(`(?m)by refused\n\nCONSUMER +REFUSED BY +REFUSED/S +REFUSED +SINCE$\n^greedy +limit rate-1-h .* 6 +\d+s$`)
	term.tmux("send-keys", "a")
	term.await(`(?m)by admitted\n\nCONSUMER.*\n^busy`)

	for _, size := range [][2]int{{40, 8}, {120, 40}, {80, 24}} {
		term.tmux("resize-window", "-x", fmt.Sprint(size[0]), "-y", fmt.Sprint(size[1]))
		columns := map[int]string{40: `(?m)^CONSUMER +ADMITTED/S +REFUSED/S$`, 120: `(?m)^CONSUMER {60,}.* REFUSED$`, 80: `(?m)^CONSUMER {20,28}.* REFUSED$`}
		screen := term.await(columns[size[0]])
		if n := strings.Count(screen, "CONSUMER"); n != 1 {
			t.Errorf("at %dx%d the head of the table stands %d times:\n%s", size[0], size[1], n, screen)
		}
	}

	// A server that goes away is told, and the picture stays.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	term.await(`(?m)^not up to date: no Tollgate answers(.*\n)+busy`)

	term.tmux("send-keys", "C-c")
	screen = term.await(`(?m)^before\nready>`)
	if term.state() != "0 1 1" {
		t.Errorf("after Ctrl-C the terminal is in state %s, want the normal screen, cursor and wrapping:\n%s", term.state(), screen)
	}
	if strings.Contains(screen, "CONSUMER") {
		t.Errorf("after Ctrl-C something is left:\n%s", screen)
	}
	term.tmux("send-keys", "echo status $?", "Enter") // typed text shows: no raw mode is left
	term.await(`(?m)^ready> echo status \$\?\nstatus 0$`)
}

// TestTopEndsBySignal: as by a key.
func TestTopEndsBySignal(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	_, address, _ := serveForTop(t)
	term := newTerminal(t, address)
	term.await("ready>")
	pidFile := t.TempDir() + "/pid"
	term.tmux("send-keys", "sh -c 'echo $$ >"+pidFile+"; exec tollgate top'; echo status $?", "Enter")
	term.await("(?m)^CONSUMER")
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	term.await(`(?m)^status 0$`)
	if term.state() != "0 1 1" {
		t.Errorf("the terminal is left in state %s", term.state())
	}
}

func TestNotes(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	until, past, bad := now.Add(90*time.Second), now.Add(-time.Second), "tollgate.yaml:1:1: unknown key"
	got := notes(now, admin.Config{LastError: &bad}, []admin.Upstream{
		{ID: "fine", State: upstreams.Open},
		{ID: "keeper", State: upstreams.Frozen, Until: &until, Violations: 2, Reason: "403 throttled", Waiting: 7},
		{ID: "next", State: upstreams.Probing, Until: &past},
	})
	want := []string{
		"the configuration on disk is not in force: tollgate.yaml:1:1: unknown key",
		"upstream keeper: frozen for 1m30s more, 2 violations in a row: 403 throttled, 7 waiting",
		"upstream next: probing",
	}
	if !slices.Equal(got, want) {
		t.Errorf("notes are %q, want %q", got, want)
	}
}

// serveForTop runs a server on which two consumers have called.
func serveForTop(t *testing.T) (s *server.Server, address string, ask func(consumer string, n int)) {
	t.Helper()
	config := t.TempDir() + "/tollgate.yaml"
	text := "listen: {grpc: '127.0.0.1:0', http: '127.0.0.1:0', drain: 0s}\nlimits: {warm_up: {grace: 0s, ramp: 0s}}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := server.Start(t.Context(), server.Options{ConfigPath: config, DataDir: t.TempDir(), Log: new(strings.Builder)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // a test may have closed it
	conn, err := grpc.NewClient("passthrough:///"+s.GRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	address = "http://" + s.HTTPAddr()
	client, tokens := admin.Client{Server: address}, map[string]string{}
	for consumer, limit := range map[string]string{"busy": "none", "greedy": "1/h"} {
		limits, err := parseLimits(limit)
		if err != nil {
			t.Fatal(err)
		}
		if err := client.PutConsumer(t.Context(), admin.Consumer{ID: consumer, Limits: limits}, ""); err != nil {
			t.Fatal(err)
		}
		issued, err := client.IssueToken(t.Context(), consumer, admin.NewToken{ID: "prod"})
		if err != nil {
			t.Fatal(err)
		}
		tokens[consumer] = issued.Token
	}
	ask = func(consumer string, n int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for range n {
			if _, err := authv3.NewAuthorizationClient(conn).Check(ctx, request(tokens[consumer]), grpc.WaitForReady(true)); err != nil {
				t.Fatal(err)
			}
		}
	}
	ask("busy", 3)
	ask("greedy", 2)
	return s, address, ask
}
