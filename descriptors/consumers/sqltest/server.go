package sqltest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Server is a database server of a test. It is stopped at the test's end.
type Server struct {
	dir     string
	command func() *exec.Cmd
	ready   func() error
	dsn     func(database string) string
	create  func(database string) error
	client  func(database, statements string) *exec.Cmd // reads its input where there are none
	named   atomic.Int32

	cmd  *exec.Cmd
	log  bytes.Buffer
	done chan struct{}
}

// DSN names a database of the server, as its source reads it.
func (s *Server) DSN(database string) string { return s.dsn(database) }

// Dir is the folder of the server.
func (s *Server) Dir() string { return s.dir }

// Database makes an empty database of its own and returns its name.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("tollgate%d", s.named.Add(1))
	if err := s.create(name); err != nil {
		t.Fatalf("create database: %v", err)
	}
	return name
}

// Start starts the server and waits until it answers.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	s.cmd = s.command()
	s.log.Reset()
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	s.done = done
	go func(c *exec.Cmd) {
		_ = c.Wait() // killed
		close(done)
	}(s.cmd)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		err := s.ready()
		if err == nil {
			return
		}
		select {
		case <-done:
			t.Fatalf("the database ended: %v\n%s", err, &s.log)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("the database does not answer: %v", err)
		}
	}
}

// Kill ends the server at once, as a crash would.
func (s *Server) Kill(t testing.TB) { s.end(t, syscall.SIGKILL) }

// Stall stops the server in its tracks: connections stay and nothing answers.
func (s *Server) Stall(t testing.TB) { s.signal(t, syscall.SIGSTOP) }

// Resume ends a Stall.
func (s *Server) Resume(t testing.TB) { s.signal(t, syscall.SIGCONT) }

func (s *Server) end(t testing.TB, sig syscall.Signal) {
	s.signal(t, sig)
	<-s.done
	s.cmd = nil
}

// signal reaches the server and the processes that it started.
func (s *Server) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	pid := s.cmd.Process.Pid
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it ended
		}
		_, rest, _ := bytes.Cut(text, []byte(") ")) // behind the name: state, parent
		if fields := bytes.Fields(rest); len(fields) > 1 && string(fields[1]) == strconv.Itoa(pid) {
			child, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err == nil {
				_ = syscall.Kill(child, sig) // or it ended
			}
		}
	}
}

func (s *Server) stop(t testing.TB) {
	if s.cmd == nil {
		return
	}
	s.signal(t, syscall.SIGCONT)
	s.end(t, syscall.SIGKILL)
}

// folder makes a folder that the server's user may use, with a short path:
// sockets have no room for long ones.
func folder(t testing.TB, credential *syscall.Credential) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tgdb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // a leftover does no harm
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if credential != nil {
		if err := os.Chown(dir, int(credential.Uid), int(credential.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// unprivileged is whom a server runs as: databases refuse to be root. Nil is
// the test's own user.
func unprivileged(t testing.TB) *syscall.Credential {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Skipf("SKIPPED: the test is root, a database may not be, and there is no user nobody: %v", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// program finds a program on the PATH or where Debian's packages have it.
func program(t testing.TB, debian, name string, elsewhere ...string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, pattern := range elsewhere {
		if found, err := filepath.Glob(filepath.Join(pattern, name)); err == nil && len(found) > 0 {
			return found[len(found)-1]
		}
	}
	t.Skipf("SKIPPED: %s is not installed: apt-get install %s", name, debian)
	return ""
}

func command(credential *syscall.Credential, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LC_ALL=C.UTF-8", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
	dieWithParent(cmd.SysProcAttr)
	return cmd
}

func run(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
}
