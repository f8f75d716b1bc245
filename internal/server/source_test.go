package server_test

import (
	"context"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tollgate-dev/tollgate/descriptors/consumers/sqltest"
)

// TestDatabase runs two servers on one PostgreSQL: one that waits for it, and
// both through its end and return.
func TestDatabase(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a database")
	}
	db := sqltest.Postgres(t)
	database := db.Database(t)
	config := base + "consumers: {source: postgres, dsn: \"" + db.DSN(database) + "\", poll: 100ms}\n"
	check := func(r *running, token string) (int32, codes.Code) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		resp, err := authv3.NewAuthorizationClient(r.conn).Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
			Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/", Headers: map[string]string{"x-api-key": token}},
		}}})
		return int32(resp.GetDeniedResponse().GetStatus().GetCode()), status.Code(err)
	}

	db.Kill(t)
	a := start(t, config)
	if code, text := get(t, a.HTTPAddr(), "/readyz"); code != 503 || !strings.Contains(text, "waiting for the consumers: postgres") || strings.Contains(text, "s3cret") {
		t.Errorf("/readyz without a database = %d %q", code, text)
	}
	if _, code := check(a, "t"); code != codes.Unavailable {
		t.Errorf("Check without a database = %v, want Unavailable: nobody can say whose the token is", code)
	}
	db.Start(t)
	sqltest.Eventually(t, "the server is ready", func() bool { code, _ := get(t, a.HTTPAddr(), "/readyz"); return code == 200 })
	b := start(t, config)

	if code, text := a.send(t, "PUT", "/v1/consumers/x", `{"limits":[{"rate":"0/s"}]}`); code != 200 {
		t.Fatalf("PUT = %d %s", code, text)
	}
	db.Exec(t, database, "INSERT INTO tollgate_tokens (consumer, id, sha256) VALUES ('x', 't', sha256('token'))")
	for _, r := range []*running{a, b} {
		sqltest.Eventually(t, "the token is known and has no requests left", func() bool { code, _ := check(r, "token"); return code == 429 })
	}
	if code, text := b.send(t, "PUT", "/v1/settings", `{"mode":"shadow","default_limit":"3/s"}`); code != 200 {
		t.Fatalf("PUT settings = %d %s", code, text)
	}
	if code, _ := check(b, "token"); code != 0 {
		t.Errorf("right after its answer, mode shadow is not in force: %d", code)
	}
	sqltest.Eventually(t, "the other is in mode shadow", func() bool { code, _ := check(a, "token"); return code == 0 })
	if _, text := get(t, a.HTTPAddr(), "/v1/settings"); !strings.Contains(text, `"shadow"`) || !strings.Contains(text, `"3/s"`) {
		t.Errorf("settings of the other instance: %s", text)
	}

	db.Kill(t)
	sqltest.Eventually(t, "readiness tells of the source", func() bool {
		_, text := get(t, a.HTTPAddr(), "/readyz")
		return strings.Contains(text, "is down since")
	})
	if code, text := get(t, a.HTTPAddr(), "/readyz"); code != 200 || strings.Contains(text, "s3cret") {
		t.Errorf("/readyz of an instance that goes on = %d %q", code, text)
	}
	if code, err := check(a, "token"); code != 0 || err != codes.OK {
		t.Errorf("Check while the database is away = %d, %v", code, err)
	}
	if code, text := a.send(t, "PUT", "/v1/consumers/x", `{}`); code != 503 || strings.Contains(text, "s3cret") {
		t.Errorf("PUT while the database is away = %d %s, want 503", code, text)
	}
	if _, text := get(t, a.HTTPAddr(), "/metrics"); !strings.Contains(text, "tollgate_source_up 0") || strings.Contains(text, "tollgate_source_errors_total 0\n") {
		t.Error("metrics do not tell that the source is down")
	}
	db.Start(t)
	db.Exec(t, database, "DELETE FROM tollgate_settings")
	sqltest.Eventually(t, "the file's mode counts again", func() bool { code, _ := check(a, "token"); return code == 429 })
	if strings.Contains(a.log.String()+b.log.String(), "s3cret") {
		t.Error("the log holds the password")
	}
}
