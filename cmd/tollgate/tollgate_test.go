package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tollgate-dev/tollgate/limits/redis/redistest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tollgate": main, rateLimitName: main})
}

// TestScripts drives the binary as users do. A script has $GRPC and $HTTP, two
// free addresses, and the commands of this file beside the usual ones.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			for _, name := range []string{"GRPC", "HTTP"} {
				e.Setenv(name, redistest.FreeAddr(t))
			}
			_, port, _ := net.SplitHostPort(e.Getenv("HTTP"))
			e.Setenv("HTTPPORT", port)
			e.Setenv("TOLLGATE_SERVER", "http://"+e.Getenv("HTTP"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"await": await, "ask": ask, "awaitask": awaitAsk, "save": save,
		},
	})
}

// await PATH STATUS [TEXT] waits until the HTTP port answers so.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: await PATH STATUS [TEXT]")
	}
	text := strings.Join(args[2:], "")
	last := "nothing"
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-tick.C {
		resp, err := http.Get("http://" + ts.Getenv("HTTP") + args[0])
		if err != nil {
			last = err.Error()
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		last = fmt.Sprintf("%d %s", resp.StatusCode, body)
		if strconv.Itoa(resp.StatusCode) == args[1] && strings.Contains(string(body), text) {
			return
		}
	}
	ts.Fatalf("%s: still %s, want %s", args[0], last, args[1])
}

// ask VARIABLE N STATUS asks N times with the token in a variable; the last
// answer must be STATUS, 200 for an admission.
func ask(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: ask VARIABLE N STATUS")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	got := ""
	for range n {
		got = check(ts, args[0])
	}
	if want := args[2]; got != want {
		ts.Fatalf("answer %d is %s, want %s", n, got, want)
	}
}

// awaitask VARIABLE STATUS asks until that is the answer.
func awaitAsk(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: awaitask VARIABLE STATUS")
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-tick.C {
		if check(ts, args[0]) == args[1] {
			return
		}
	}
	ts.Fatalf("the answer is still not %s", args[1])
}

// check asks once, and returns the status that a client of Envoy would see.
func check(ts *testscript.TestScript, variable string) string {
	conn, err := grpc.NewClient("passthrough:///"+ts.Getenv("GRPC"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	ts.Check(err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	resp, err := authv3.NewAuthorizationClient(conn).Check(ctx, request(ts.Getenv(variable)), grpc.WaitForReady(true))
	ts.Check(err)
	if resp.GetStatus().GetCode() == 0 {
		return "200"
	}
	return strconv.Itoa(int(resp.GetDeniedResponse().GetStatus().GetCode()))
}

func request(token string) *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{}},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "GET", Path: "/", Host: "api", Headers: map[string]string{"x-api-key": token},
		}},
	}}
}

// save VARIABLE keeps what the last command printed.
func save(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: save VARIABLE")
	}
	text := ts.ReadFile("stdout")
	for len(text) > 0 && text[len(text)-1] == '\n' {
		text = text[:len(text)-1]
	}
	ts.Setenv(args[0], text)
}
