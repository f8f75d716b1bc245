package server_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestDiskFull: a disk without room keeps changes from being made, and says so,
// but no decision. When there is room again, changes are taken without a restart.
func TestDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: only root can make a disk of its own to fill")
	}
	r := &running{dir: t.TempDir(), log: new(buffer)}
	disk := r.dir + "/data"
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("SKIPPED: no disk to fill: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	write(t, r.dir+"/tollgate.yaml", base)
	write(t, r.dir+"/rules.yaml", fmt.Sprintf(rules, 1))
	r.start(t)
	token := r.newToken(t, "billing", `none`)
	r.must(t, 200, "PUT", "/v1/consumers/counted", `{"limits":[{"quota":"5/day"}]}`, nil)

	if err := os.WriteFile(disk+"/filling", make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("the disk is larger than it was made")
	}
	failed := 0
	for i := range 200 { // the first may fit into pages that the file has already
		status, body := r.send(t, "PUT", fmt.Sprintf("/v1/consumers/c-%d", i), `{"labels":{"long":"`+strings.Repeat("x", 1000)+`"}}`)
		switch {
		case status == http.StatusInternalServerError:
			failed++
		case status != http.StatusOK:
			t.Fatalf("HTTP %d: %s", status, body)
		}
		if got := r.check(t, token); got != http.StatusOK {
			t.Fatalf("a decision with a full disk: %d", got)
		}
	}
	if failed == 0 {
		t.Error("no change failed: was the disk full?")
	}
	if !strings.Contains(r.log.String(), "no space left") {
		t.Errorf("the log does not say why:\n%s", r.log.String())
	}
	if err := os.Remove(disk + "/filling"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "changes are taken again", func() bool {
		return r.call(t, "PUT", "/v1/consumers/after", `{"limits":"1/h"}`, nil) == http.StatusOK
	})
	after := r.newToken(t, "after", "1/h")
	for _, want := range []int{200, 429} {
		if got := r.check(t, after); got != want {
			t.Errorf("a consumer made afterwards: %d, want %d", got, want)
		}
	}
}
