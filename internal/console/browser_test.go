package console_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tollgate-dev/tollgate/internal/admin"
	"github.com/tollgate-dev/tollgate/internal/server"
)

var screenshots = flag.Bool("screenshots", false, "write testdata/*.png")

// browser is a headless Chromium on a running Tollgate.
type browser struct {
	ctx    context.Context
	url    string
	client admin.Client

	mu       sync.Mutex
	problems []string // that the browser's console told of
}

func chromium(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("needs Chromium: not in -short")
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("SKIPPED: no Chromium: run `make services`, or apt-get install chromium")
	return ""
}

// startServer runs a Tollgate with an admin token; files are by name.
func startServer(t *testing.T, config string, files map[string]string) *server.Server {
	t.Helper()
	dir := t.TempDir()
	files["tollgate.yaml"] = "listen: {grpc: \"127.0.0.1:0\", http: \"127.0.0.1:0\", drain: 0s}\nadmin: {token: " + adminToken + "}\n" + config
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := server.Start(t.Context(), server.Options{ConfigPath: filepath.Join(dir, "tollgate.yaml"), DataDir: dir, Log: new(bytes.Buffer)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func open(t *testing.T, s *server.Server) *browser {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium(t)), chromedp.NoSandbox, chromedp.WindowSize(1200, 800))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx, chromedp.WithErrorf(func(string, ...any) {}))
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 3*time.Minute)
	t.Cleanup(cancel)
	b := &browser{ctx: ctx, url: "http://" + s.HTTPAddr(), client: admin.Client{Server: "http://" + s.HTTPAddr(), Token: adminToken}}
	chromedp.ListenTarget(ctx, func(event any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			b.problems = append(b.problems, e.ExceptionDetails.Error())
		case *log.EventEntryAdded:
			if e.Entry.Level == log.LevelError && !strings.Contains(e.Entry.Text, "401") && !strings.Contains(e.Entry.Text, "422") {
				b.problems = append(b.problems, e.Entry.Text+" "+e.Entry.URL)
			}
		}
	})
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, p := range b.problems {
			t.Errorf("the browser complains: %s", p)
		}
	})
	b.do(t, chromedp.Navigate(b.url))
	return b
}

func (b *browser) do(t *testing.T, actions ...chromedp.Action) {
	t.Helper()
	if err := chromedp.Run(b.ctx, actions...); err != nil {
		var page string
		_ = chromedp.Run(b.ctx, chromedp.Text("body", &page))
		t.Fatalf("%v\nThe page says:\n%s", err, page)
	}
}

// await waits until a JavaScript expression is true.
func (b *browser) await(t *testing.T, expression string) {
	t.Helper()
	b.do(t, chromedp.Poll(expression, nil, chromedp.WithPollingTimeout(40*time.Second), chromedp.WithPollingInterval(20*time.Millisecond)))
}

// eval returns what a JavaScript expression is.
func (b *browser) eval(t *testing.T, expression string) (s string) {
	t.Helper()
	b.do(t, chromedp.Evaluate("String("+expression+")", &s))
	return s
}

// keys presses keys, as a person without a mouse does.
func (b *browser) keys(t *testing.T, keys ...string) {
	t.Helper()
	for _, k := range keys {
		b.do(t, chromedp.KeyEvent(k))
	}
}

// tabTo presses Tab until what is focused has a text or label.
func (b *browser) tabTo(t *testing.T, label string) {
	t.Helper()
	for range 60 {
		b.keys(t, kb.Tab)
		focused := b.eval(t, `(document.activeElement.getAttribute("aria-label") || document.activeElement.closest("label")?.firstChild.textContent || document.activeElement.textContent)`)
		if strings.TrimSpace(focused) == label {
			return
		}
	}
	t.Fatalf("%q cannot be reached by Tab", label)
}

func (b *browser) picture(t *testing.T, name string) {
	t.Helper()
	if !*screenshots {
		return
	}
	if b.eval(t, `document.querySelector("polyline") !== null`) == "true" { // let there be something to see
		b.await(t, `document.querySelector("polyline").getAttribute("points").split(" ").length > 14`)
	}
	b.do(t, chromedp.Evaluate(`scrollTo(0, 0)`, nil))
	var png []byte
	b.do(t, chromedp.CaptureScreenshot(&png))
	if err := os.WriteFile("testdata/"+name+".png", png, 0o644); err != nil {
		t.Fatal(err)
	}
}

// names fails where something that can be used has no name for a screen reader.
func (b *browser) names(t *testing.T) {
	t.Helper()
	b.do(t, chromedp.ActionFunc(func(ctx context.Context) error {
		nodes, err := accessibility.GetFullAXTree().Do(ctx)
		used := 0
		for _, n := range nodes {
			if n.Ignored || n.Role == nil {
				continue
			}
			switch role := strings.Trim(string(n.Role.Value), `"`); role {
			case "button", "link", "textbox", "searchbox", "combobox", "checkbox", "spinbutton", "image", "table", "dialog":
				used++
				if n.Name == nil || strings.Trim(string(n.Name.Value), `" `) == "" {
					t.Errorf("a %s has no name", role)
				}
			}
		}
		if used < 3 {
			t.Errorf("only %d things to use", used)
		}
		return err
	}))
}

// signIn does so by keyboard: the field has the focus.
func (b *browser) signIn(t *testing.T) {
	t.Helper()
	b.await(t, `document.activeElement.type === "password"`)
	b.keys(t, adminToken, kb.Enter)
	b.await(t, `document.querySelector("h1")?.textContent === "Overview"`)
}

// traffic has a token asked for, ten times a second or as much more as swings
// up and down, until the test's end.
func traffic(t *testing.T, s *server.Server, token string, swing float64) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+s.GRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		start, tick := time.Now(), time.NewTicker(100*time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-tick.C:
				for range int(1 + swing*(1+math.Sin(now.Sub(start).Seconds()/2+swing))) {
					_, _ = check(ctx, conn, token)
				}
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done; _ = conn.Close() })
}

func check(ctx context.Context, conn *grpc.ClientConn, token string) (int32, error) {
	r, err := authv3.NewAuthorizationClient(conn).Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/", Host: "api", Headers: map[string]string{"x-api-key": token}}},
	}})
	return r.GetStatus().GetCode(), err
}

func TestBrowser(t *testing.T) {
	chromium(t)
	s := startServer(t, "limits: {warm_up: {grace: 0s, ramp: 0s}}\n", map[string]string{})
	client := admin.Client{Server: "http://" + s.HTTPAddr(), Token: adminToken}
	for i := range 45 {
		var c admin.Consumer
		if err := json.Unmarshal(fmt.Appendf(nil, `{"id":"team-%02d","limits":[{"rate":"%d/s"}]}`, i, i+1), &c); err != nil {
			t.Fatal(err)
		}
		if err := client.PutConsumer(t.Context(), c, ""); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 {
		issued, err := client.IssueToken(t.Context(), fmt.Sprintf("team-%02d", i), admin.NewToken{ID: "prod"})
		if err != nil {
			t.Fatal(err)
		}
		if i == 5 || *screenshots {
			traffic(t, s, issued.Token, float64(i%5)/4)
		}
	}
	b := open(t, s)

	b.await(t, `document.activeElement.type === "password"`)
	b.keys(t, "guessed", kb.Enter)
	b.await(t, `document.getElementById("failure").textContent.includes("not the admin token")`)
	b.signIn(t)
	if got := b.eval(t, `document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)`); got != "{}{}" {
		t.Errorf("a script can read %q", got)
	}
	b.await(t, `[...document.querySelectorAll("td a")].some((a) => a.textContent === "team-05")`)
	b.names(t)
	b.picture(t, "overview")

	t.Run("list", func(t *testing.T) {
		b.tabTo(t, "Consumers")
		b.keys(t, kb.Enter)
		b.await(t, `document.querySelectorAll("tbody tr").length === 20`)
		b.tabTo(t, "Next page")
		b.keys(t, kb.Enter)
		b.await(t, `document.querySelector("tbody td")?.textContent === "team-20"`)
		b.keys(t, kb.Enter)
		b.await(t, `document.querySelectorAll("tbody tr").length === 5`)
		if got := b.eval(t, `[...document.querySelectorAll("button")].find((b) => b.textContent === "Next page").disabled`); got != "true" {
			t.Error("the last page goes on")
		}
		b.do(t, chromedp.SendKeys(`input[type=search]`, "TEAM-0"))
		b.await(t, `document.querySelectorAll("tbody tr").length === 10 && document.querySelector("tbody td").textContent === "team-00"`)
		b.await(t, `[...document.querySelectorAll("tr")].some((r) => r.textContent.includes("team-05") && / [1-9][0-9.]* admitted|^[1-9][0-9.]* admitted/.test(r.querySelector("svg")?.getAttribute("aria-label")) && r.querySelector("polyline.admitted").getAttribute("points"))`)
		b.names(t)
		b.picture(t, "consumers")
	})

	t.Run("consumer", func(t *testing.T) {
		b.tabTo(t, "team-05")
		b.keys(t, kb.Enter)
		b.await(t, `document.querySelector("h1").textContent === "team-05" && document.querySelector("fieldset input")?.value === "6/s"`)
		b.do(t, chromedp.Evaluate(`document.querySelector("fieldset input").select()`, nil), chromedp.KeyEvent("7 a fortnight"+kb.Enter))
		b.await(t, `document.getElementById("failure").textContent.includes("fortnight")`)
		b.do(t, chromedp.Evaluate(`document.querySelector("fieldset input").select()`, nil), chromedp.KeyEvent("7/s"+kb.Enter))
		b.await(t, `document.getElementById("status").textContent.includes("the next decision uses it")`)
		if c, _, err := client.Consumer(t.Context(), "team-05"); err != nil || len(c.Limits) != 1 || c.Limits[0].N != 7 {
			t.Errorf("the limit is %v (%v)", c.Limits, err)
		}
		b.await(t, `[...document.querySelectorAll("td")].some((c) => c.textContent.includes("rate-7-s"))`)
		b.names(t)
		b.picture(t, "consumer")
	})

	t.Run("tokens", func(t *testing.T) {
		conn, err := grpc.NewClient("passthrough:///"+s.GRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		b.tabTo(t, "Token id")
		b.keys(t, "laptop", kb.Enter)
		b.await(t, `document.querySelector("dialog[open] output")?.textContent.startsWith("tg_")`)
		b.names(t)
		secret := b.eval(t, `document.querySelector("dialog output").textContent`)
		if code, err := check(t.Context(), conn, secret); err != nil || code != 0 {
			t.Errorf("the shown token is answered %d (%v)", code, err)
		}
		b.keys(t, kb.Escape)
		b.await(t, `!document.querySelector("dialog") && !document.documentElement.outerHTML.includes("`+secret+`")`)
		b.await(t, `[...document.querySelectorAll("td")].some((c) => c.textContent === "laptop")`)
		b.tabTo(t, "Rotate laptop")
		b.keys(t, kb.Enter)
		b.await(t, `document.querySelector("dialog[open]")`)
		b.keys(t, kb.Tab, kb.Tab, kb.Tab) // round: the dialog keeps the focus
		b.do(t, chromedp.Click(`dialog button.danger`))
		b.await(t, `document.querySelector("dialog[open] output")?.textContent.startsWith("tg_")`)
		if again := b.eval(t, `document.querySelector("dialog output").textContent`); again == secret {
			t.Error("rotating shows the same secret")
		}
		b.keys(t, kb.Escape)
		b.tabTo(t, "Revoke laptop")
		b.keys(t, kb.Enter)
		b.await(t, `document.querySelector("dialog[open] .danger")`)
		b.do(t, chromedp.Click(`dialog button.danger`))
		b.await(t, `![...document.querySelectorAll("td")].some((c) => c.textContent === "laptop")`)
		if code, err := check(t.Context(), conn, secret); err != nil || code == 0 {
			t.Errorf("the revoked token is answered %d (%v)", code, err)
		}
	})

	t.Run("settings", func(t *testing.T) {
		b.do(t, chromedp.Navigate(b.url+"/#/"))
		b.await(t, `document.querySelector("select")?.value === "enforce" && document.querySelector("form input")?.value === "20/s"`)
		b.do(t, chromedp.SetValue(`select`, "shadow"), chromedp.Click(`form button.first`))
		b.await(t, `document.querySelector("dialog[open] .danger")`)
		b.do(t, chromedp.Click(`dialog button.danger`))
		b.await(t, `document.getElementById("status").textContent.includes("in force")`)
		if now, err := client.Settings(t.Context()); err != nil || *now.Mode != "shadow" {
			t.Errorf("mode %v (%v)", now.Mode, err)
		}
	})

	t.Run("foreign page", func(t *testing.T) {
		// What another site could have the browser send bears no cookie.
		r, err := http.NewRequest("PUT", b.url+"/v1/settings", strings.NewReader(`{"mode":"off"}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("content-type", "application/json")
		resp, err := http.DefaultClient.Do(r)
		if err != nil || resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("without the cookie: %v %v", resp, err)
		}
	})

	t.Run("sign out", func(t *testing.T) {
		b.tabTo(t, "Sign out")
		b.keys(t, kb.Enter)
		b.await(t, `document.activeElement.type === "password"`)
		b.do(t, chromedp.Reload())
		b.await(t, `document.activeElement.type === "password"`)
	})
}

// TestBrowserUpstreams shows what an upstream's pause looks like, in the dark
// and in Chinese.
func TestBrowserUpstreams(t *testing.T) {
	chromium(t)
	b := open(t, startServer(t, "", map[string]string{}))
	until := time.Now().Add(90 * time.Second).UTC().Format(time.RFC3339)
	body := base64.StdEncoding.EncodeToString([]byte(`{"upstreams":[{"id":"keeper","state":"frozen","until":"` + until + `","violations":3},{"id":"billing","state":"open","until":null,"violations":0}]}`))
	chromedp.ListenTarget(b.ctx, func(event any) {
		if e, ok := event.(*fetch.EventRequestPaused); ok {
			go func() {
				_ = chromedp.Run(b.ctx, fetch.FulfillRequest(e.RequestID, 200).WithBody(body).
					WithResponseHeaders([]*fetch.HeaderEntry{{Name: "content-type", Value: "application/json"}}))
			}()
		}
	})
	b.do(t, fetch.Enable().WithPatterns([]*fetch.RequestPattern{{URLPattern: "*/v1/upstreams"}}))
	b.signIn(t)
	seconds := `parseInt([...document.querySelectorAll("tr")].find((r) => r.textContent.includes("keeper"))?.cells[2].textContent)`
	b.await(t, seconds+` > 60`)
	b.await(t, seconds+` < 89`)
	b.names(t)
	light := b.eval(t, `getComputedStyle(document.body).backgroundColor`)
	b.do(t, emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}))
	if dark := b.eval(t, `getComputedStyle(document.body).backgroundColor`); dark == light {
		t.Errorf("light and dark are both %s", dark)
	}
	b.picture(t, "dark")
	b.do(t, emulation.SetUserAgentOverride("test").WithAcceptLanguage("zh-CN,en"), chromedp.Reload())
	b.await(t, `document.documentElement.lang === "zh-CN" && document.querySelector("h1")?.textContent === "概览"`)
	b.await(t, `[...document.querySelectorAll("td")].some((c) => c.textContent === "冻结：已暂停")`)
}

// TestBrowserIsFastWithManyConsumers has 100,000 of them.
func TestBrowserIsFastWithManyConsumers(t *testing.T) {
	chromium(t)
	var many strings.Builder
	many.WriteString("consumers:\n")
	for i := range 100_000 {
		fmt.Fprintf(&many, "- {id: consumer-%06d, limit: 10/s}\n", i)
	}
	b := open(t, startServer(t, "consumers: {source: file, file: consumers.yaml}\n", map[string]string{"consumers.yaml": many.String()}))
	b.signIn(t)
	const most = 3 * time.Second // on a machine that is busy with other tests; alone it takes a tenth
	start := time.Now()
	b.do(t, chromedp.Navigate(b.url+"/#/consumers"))
	b.await(t, `document.querySelectorAll("tbody tr").length === 20`)
	if took := time.Since(start); took > most {
		t.Errorf("the first page takes %v", took)
	} else {
		t.Logf("first page: %v", took)
	}
	start = time.Now()
	b.do(t, chromedp.SendKeys(`input[type=search]`, "r-09999"))
	b.await(t, `document.querySelectorAll("tbody tr").length === 10`)
	if took := time.Since(start); took > most {
		t.Errorf("a search takes %v", took)
	} else {
		t.Logf("search: %v", took)
	}
}
