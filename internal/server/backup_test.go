package server_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tollgate-dev/tollgate/descriptors/consumers/embedded"
	"github.com/tollgate-dev/tollgate/internal/admin"
)

// TestBackupUnderLoad backs a server up while it decides and is changed: no
// decision fails meanwhile, and a server that starts on the backup knows every
// token that was issued before it was taken.
func TestBackupUnderLoad(t *testing.T) {
	r := start(t, base)
	client := admin.Client{Server: "http://" + r.HTTPAddr()}
	first := r.newToken(t, "first", "none")

	var load sync.WaitGroup
	stop := make(chan struct{})
	until := func(do func(i int)) {
		load.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					do(i)
				}
			}
		})
	}
	var decided, issued atomic.Int64
	var tokens sync.Map // of consumers that were acknowledged
	until(func(int) {
		if got := r.check(t, first); got != http.StatusOK {
			t.Errorf("during the backup: %d", got)
		}
		decided.Add(1)
	})
	for g := range 2 {
		until(func(i int) {
			id := fmt.Sprintf("c-%d-%d", g, i)
			if err := client.PutConsumer(t.Context(), admin.Consumer{ID: id}, ""); err != nil {
				t.Error(err)
				return
			}
			token, err := client.IssueToken(t.Context(), id, admin.NewToken{ID: "prod"})
			if err != nil {
				t.Error(err)
				return
			}
			tokens.Store(id, token.Token)
			issued.Add(1)
		})
	}
	eventually(t, "ten tokens", func() bool { return issued.Load() >= 10 })
	before := map[string]string{"first": first}
	tokens.Range(func(id, token any) bool { before[id.(string)] = token.(string); return true })
	at, during := issued.Load(), decided.Load()
	var backup bytes.Buffer
	if err := client.Backup(t.Context(), &backup); err != nil {
		t.Fatal(err)
	}
	eventually(t, "load goes on", func() bool { return issued.Load() > at && decided.Load() > during })
	close(stop)
	load.Wait()
	for _, token := range before {
		if bytes.Contains(backup.Bytes(), []byte(token)) {
			t.Fatal("the backup holds a token")
		}
	}

	again := &running{dir: t.TempDir(), log: new(buffer)}
	write(t, again.dir+"/tollgate.yaml", base)
	write(t, again.dir+"/rules.yaml", fmt.Sprintf(rules, 1))
	if err := os.Mkdir(again.dir+"/data", 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := embedded.Restore(&backup, filepath.Join(again.dir, "data", embedded.FileName), embedded.KeepStore); err != nil {
		t.Fatal(err)
	}
	again.start(t)
	for id, token := range before {
		if got := again.check(t, token); got != http.StatusOK {
			t.Errorf("after the restore: %d for %s, want 200", got, id)
		}
	}
}
