package console_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"

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
	ctx, cancel = context.WithTimeout(ctx, 8*time.Minute)
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
	b.do(t, chromedp.Poll(expression, nil, chromedp.WithPollingTimeout(2*time.Minute), chromedp.WithPollingInterval(20*time.Millisecond)))
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

// accessible has axe-core look at the page: WCAG 2.2 A and AA, and what it calls
// best practices.
func (b *browser) accessible(t *testing.T) {
	t.Helper()
	b.names(t)
	b.contrast(t)
	pins, err := os.ReadFile("testdata/axe.txt")
	if err != nil {
		t.Fatal(err)
	}
	_, version, _ := strings.Cut(string(pins), "axe-playwright-python==")
	version, _, _ = strings.Cut(version, " ")
	axe, err := os.ReadFile("../../.tools/axe-" + version + "/axe_playwright_python/axe.min.js")
	if err != nil {
		t.Logf("NOT TESTED with axe-core: %v: run `make axe`", err)
		return
	}
	var found string
	b.do(t, chromedp.Evaluate(string(axe)+"; 0", nil), chromedp.Evaluate(`axe.run().then((r) => r.passes.length < 10 ? "only " + r.passes.length + " rules apply" :
		r.violations.map((v) => v.impact + " " + v.id + ": " + v.help + ": " + v.nodes.map((n) => n.html).join(" ")).join("\n"))`, &found,
		func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	if found != "" {
		t.Errorf("axe-core finds:\n%s", found)
	}
}

// contrast fails where text does not stand out from what it stands on as WCAG 2.2
// asks at level AA: 4.5 to 1.
func (b *browser) contrast(t *testing.T) {
	t.Helper()
	faint := b.eval(t, `(() => {
		const rgb = (c) => c.match(/[\d.]+/g).map(Number);
		const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
		const behind = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
		const all = [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility() && !e.disabled && ([...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || e.value));
		if (all.length < 20) return "only " + all.length + " texts";
		return all.map((e) => { const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x); return [(a + 0.05) / (b + 0.05), e.tagName + " " + (e.textContent || e.value).trim()]; })
			.filter(([c]) => c < 4.5).map(([c, text]) => c.toFixed(2) + " " + text).join("; ");
	})()`)
	if faint != "" {
		t.Errorf("hard to read: %s", faint)
	}
}

// forget is for what the browser is right to complain of.
func (b *browser) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problems = nil
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
	conn := dial(t, s)
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
	t.Cleanup(func() { cancel(); <-done })
}

func dial(t *testing.T, s *server.Server) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+s.GRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func check(ctx context.Context, conn *grpc.ClientConn, token string) (int32, error) {
	return ask(ctx, conn, "api", map[string]string{"x-api-key": token})
}

// checkHost is check on the way out.
func checkHost(ctx context.Context, conn *grpc.ClientConn, host string) (int32, error) {
	return ask(ctx, conn, host, nil)
}

func ask(ctx context.Context, conn *grpc.ClientConn, host string, headers map[string]string) (int32, error) {
	r, err := authv3.NewAuthorizationClient(conn).Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/", Host: host, Headers: headers}},
	}})
	return r.GetStatus().GetCode(), err
}

// throttled tells that an upstream answered 429, as Envoy does.
func throttled(t *testing.T, conn *grpc.ClientConn, upstream string) {
	t.Helper()
	stream, err := extprocv3.NewExternalProcessorClient(conn).Process(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&extprocv3.ProcessingRequest{
		Request: &extprocv3.ProcessingRequest_ResponseHeaders{ResponseHeaders: &extprocv3.HttpHeaders{EndOfStream: true, Headers: &corev3.HeaderMap{
			Headers: []*corev3.HeaderValue{{Key: ":status", RawValue: []byte("429")}}}}},
		MetadataContext: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
			"envoy.filters.http.ext_authz": {Fields: map[string]*structpb.Value{"upstream": structpb.NewStringValue(upstream)}}}},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	_ = stream.CloseSend()
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
		if i == 0 || i == 5 || *screenshots {
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
	b.await(t, `[...document.querySelectorAll("[aria-label='Refused now'] tbody tr")].some((r) => r.cells[0].textContent === "team-00" && r.cells[2].textContent === "Limit rate-1-s: 1/s" && r.cells[3].textContent === "Tollgate" && Number(r.cells[5].textContent) > 0 && Number(r.cells[6].textContent) >= 0 && r.cells[6].textContent !== "")`)
	b.accessible(t)
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
		b.accessible(t)
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
		b.accessible(t)
		b.picture(t, "consumer")
	})

	t.Run("tokens", func(t *testing.T) {
		conn := dial(t, s)
		b.tabTo(t, "Token id")
		b.keys(t, "laptop", kb.Enter)
		b.await(t, `document.querySelector("dialog[open] output")?.textContent.startsWith("tg_")`)
		b.accessible(t)
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
		b.do(t, chromedp.Evaluate(`document.querySelectorAll("select")[1].value = "debug"`, nil))
		b.do(t, chromedp.SetValue(`select`, "shadow"), chromedp.Click(`form button.first`))
		b.await(t, `document.querySelector("dialog[open] .danger")`)
		b.do(t, chromedp.Click(`dialog button.danger`))
		b.await(t, `document.getElementById("status").textContent.includes("in force")`)
		if now, err := client.Settings(t.Context()); err != nil || *now.Mode != "shadow" || *now.LogLevel != "debug" {
			t.Errorf("settings %v %v (%v)", now.Mode, now.LogLevel, err)
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

// TestBrowserUpstreams has a real upstream ask for a pause, in light, in the
// dark and in Chinese: the countdown, who is refused because of it, and the
// button that ends it.
func TestBrowserUpstreams(t *testing.T) {
	chromium(t)
	s := startServer(t, `upstreams:
  - {id: keeper, match: {host: keeper.example}, limits: [{window: 100/1s}], pressure: {signals: [{status: 429}], initial: 5m, max: 10m}}
  - {id: calm, match: {host: calm.example}, limits: [{window: 100/1s}]}
`, map[string]string{})
	conn := dial(t, s)
	if code, err := checkHost(t.Context(), conn, "keeper.example"); err != nil || code != 0 {
		t.Fatalf("before the pause: %d, %v", code, err)
	}
	throttled(t, conn, "keeper")
	b := open(t, s)
	b.signIn(t)
	row := `[...document.querySelectorAll("[aria-label='Upstreams under pressure'] tbody tr")].find((r) => r.textContent.includes("keeper"))`
	b.await(t, `parseInt(`+row+`?.cells[2].textContent) > 240`)
	first := b.eval(t, `parseInt(`+row+`.cells[2].textContent)`)
	b.await(t, `parseInt(`+row+`.cells[2].textContent) < `+first)
	if got := b.eval(t, row+`.cells[1].textContent + " " + `+row+`.cells[3].textContent`); got != "frozen: paused 1" {
		t.Errorf("the state is told as %q", got)
	}
	for range 3 {
		if code, err := checkHost(t.Context(), conn, "keeper.example"); err != nil || code == 0 {
			t.Errorf("in the pause: %d, %v", code, err)
		}
	}
	now := `[...document.querySelectorAll("[aria-label='Refused now'] tbody tr")].map((r) => [...r.cells].slice(0, 6).filter((_, i) => i !== 4).map((c) => c.textContent).join("|")).join()`
	b.await(t, now+` === "nobody known||The upstream keeper asked for a pause|upstream|3"`)
	b.accessible(t)
	light := b.eval(t, `getComputedStyle(document.body).backgroundColor`)
	b.do(t, emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}))
	if dark := b.eval(t, `getComputedStyle(document.body).backgroundColor`); dark == light {
		t.Errorf("light and dark are both %s", dark)
	}
	b.accessible(t)
	b.picture(t, "dark")
	b.do(t, emulation.SetUserAgentOverride("test").WithAcceptLanguage("zh-CN,en"), chromedp.Reload())
	b.await(t, `document.documentElement.lang === "zh-CN" && document.querySelector("h1")?.textContent === "概览"`)
	b.await(t, `[...document.querySelectorAll("td")].some((c) => c.textContent === "冻结：已暂停") && document.body.textContent.includes("上游 keeper 要求暂停")`)
	b.tabTo(t, "结束 keeper 的暂停")
	b.keys(t, kb.Enter)
	b.await(t, `document.getElementById("status").textContent === "keeper 的暂停已结束。" && [...document.querySelectorAll("[aria-label='承压的上游'] tbody tr")].every((r) => r.cells[2].textContent === "")`)
	if code, err := checkHost(t.Context(), conn, "keeper.example"); err != nil || code != 0 {
		t.Errorf("after the pause: %d, %v", code, err)
	}
}

// TestBrowserTellsOfABadFile: why the files as they are now are not in force, as
// soon as they are not and until they are.
func TestBrowserTellsOfABadFile(t *testing.T) {
	chromium(t)
	files := map[string]string{}
	s := startServer(t, "limits: {default: 20/s}\n", files)
	b := open(t, s)
	b.signIn(t)
	b.await(t, `document.body.textContent.includes("In force since") && document.querySelector("pre[role=alert]").textContent === ""`)
	path := b.eval(t, `[...document.querySelectorAll("code")].find((c) => c.textContent.endsWith("tollgate.yaml")).textContent`)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(files["tollgate.yaml"] + "\"limits<b>\": {}\n")
	b.await(t, `/not in force:\n.*tollgate\.yaml:4/.test(document.querySelector("pre[role=alert]").textContent)`)
	if got := b.eval(t, `document.querySelectorAll("pre b").length`); got != "0" {
		t.Error("what stands in a file is read as HTML")
	}
	write(files["tollgate.yaml"])
	b.await(t, `document.querySelector("pre[role=alert]").textContent === ""`)
}

// TestBrowserLoadsNothingFromElsewhere lists what the page asked for, and has
// the policy stop what somebody could bring in.
func TestBrowserLoadsNothingFromElsewhere(t *testing.T) {
	chromium(t)
	b := open(t, startServer(t, "", map[string]string{}))
	b.signIn(t)
	if got := b.eval(t, `performance.getEntriesByType("resource").map((e) => e.name).filter((n) => !n.startsWith(location.origin + "/")).join()`); got != "" {
		t.Errorf("loaded from elsewhere: %s", got)
	}
	if got := b.eval(t, `performance.getEntriesByType("resource").filter((e) => e.name.includes("/console/")).reduce((n, e) => n + e.decodedBodySize, 0) < 64e3`); got != "true" {
		t.Error("the page is larger than 64 kB")
	}
	b.do(t, chromedp.Evaluate(`{
		globalThis.violations = [];
		addEventListener("securitypolicyviolation", (e) => violations.push(e.effectiveDirective));
		const script = document.createElement("script"); script.textContent = "globalThis.ran = true"; document.body.append(script);
		const image = document.createElement("img"); image.src = "http://127.0.0.1:1/x.png"; document.body.append(image);
		document.body.setAttribute("onclick", "globalThis.ran = true"); document.body.click();
	}`, nil))
	b.await(t, `violations.includes("script-src-elem") && violations.includes("img-src") && violations.includes("script-src-attr")`)
	if got := b.eval(t, `globalThis.ran`); got != "undefined" {
		t.Error("a script of the page's own content ran")
	}
	b.forget()
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
	start := time.Now()
	b.do(t, chromedp.Navigate(b.url+"/#/consumers"))
	b.await(t, `document.querySelectorAll("tbody tr").length === 20`)
	t.Logf("first page: %v", time.Since(start))
	start = time.Now()
	b.do(t, chromedp.SendKeys(`input[type=search]`, "r-09999"))
	b.await(t, `document.querySelectorAll("tbody tr").length === 10`)
	t.Logf("search: %v", time.Since(start))
	// Neither has all sent to the browser, or asks for it page by page.
	got := b.eval(t, `performance.getEntriesByType("resource").filter((e) => e.name.includes("/v1/consumers")).map((e) => e.decodedBodySize).join(" ")`)
	sum := 0
	for _, size := range strings.Fields(got) {
		n, err := strconv.Atoi(size)
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	if sum < 1000 || sum > 100_000 {
		t.Errorf("%d bytes about consumers were read, in answers of %s, want those of two pages or some more", sum, got)
	}
}
