package keeper

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tollgate-dev/tollgate/envoy/process"
)

// Alias is what the operator's configuration names instead of Keeper's host.
const Alias = "keeper-prod.internal"

// Stack is Tollgate and Envoy as processes of their own, on loopback.
type Stack struct {
	tollgate *exec.Cmd
	envoy    *process.Envoy
	Addr     string // of Envoy's listener
	Admin    string // of Tollgate's API
}

// StartStack runs `tollgate serve`, and Envoy on what `tollgate envoy egress`
// prints, before an upstream. The configuration may use $SOCKET for listen.grpc
// and $WINDOW. It is to be stopped.
func StartStack(ctx context.Context, binary, config string, window time.Duration, upstream string, a *Authority) (_ *Stack, err error) {
	s := &Stack{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	environment := append(os.Environ(), "SOCKET=unix:"+filepath.Join(a.Dir, "tollgate.sock"), "WINDOW="+window.String())
	s.tollgate = exec.Command(binary, "serve", "--config", config, "--data-dir", filepath.Join(a.Dir, "data"))
	s.tollgate.Env = environment
	log, err := s.tollgate.StderrPipe()
	if err != nil {
		return s, err
	}
	if err := s.tollgate.Start(); err != nil {
		s.tollgate = nil
		return s, fmt.Errorf("%w: build it with `make build`, or name another with -tollgate", err)
	}
	if s.Admin, err = running(log); err != nil {
		return s, err
	}
	_, cert, key, err := a.Issue(Alias)
	if err != nil {
		return s, err
	}
	print := exec.Command(binary, "envoy", "egress", "--config", config, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
		"--upstream", upstream, "--upstream-ca", a.File, "--alias", Alias+"="+Host, "--listen-cert", cert, "--listen-key", key)
	print.Env, print.Stderr = environment, os.Stderr
	bootstrap, err := print.Output()
	if err != nil {
		return s, fmt.Errorf("%s: %w", strings.Join(print.Args, " "), err)
	}
	if s.envoy, err = process.Start(ctx, process.Options{Bootstrap: bootstrap}); err != nil {
		return s, err
	}
	s.Addr, err = s.envoy.Listener(ctx, "http")
	return s, err
}

// running waits until Tollgate's log says that it runs, and returns the address
// of its API. What else it logs is shown.
func running(log io.Reader) (string, error) {
	lines := bufio.NewScanner(log)
	var said []string
	for lines.Scan() {
		var line struct{ Msg, HTTP string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.HTTP != "" {
			go func() { _, _ = io.Copy(io.Discard, log) }() // ends with the process
			return line.HTTP, nil
		}
		said = append(said, lines.Text())
	}
	return "", fmt.Errorf("tollgate serve has ended: %s", strings.Join(said, "\n"))
}

// Upstreams returns what Tollgate's API says of the upstreams.
func (s *Stack) Upstreams() (string, error) {
	resp, err := http.Get("http://" + s.Admin + "/v1/upstreams")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET /v1/upstreams: %s", resp.Status)
	}
	return strings.TrimSpace(string(body)), err
}

// Stop ends both.
func (s *Stack) Stop() error {
	var errs []error
	if s.envoy != nil {
		errs = append(errs, s.envoy.Stop())
	}
	if s.tollgate != nil {
		errs = append(errs, s.tollgate.Process.Signal(syscall.SIGTERM), s.tollgate.Wait())
	}
	return errors.Join(errs...)
}
