package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	envoyconfig "github.com/tollgate-dev/tollgate/envoy/config"
	"github.com/tollgate-dev/tollgate/envoy/process"
	"github.com/tollgate-dev/tollgate/internal/server"
	"github.com/tollgate-dev/tollgate/internal/telemetry"
)

// Options of a demo.
type Options struct {
	For       time.Duration // how long it runs; 0: until the context ends
	EnvoyPath string        // empty: what process.Find finds
	Out       io.Writer     // where it tells
	Live      bool          // Out is a terminal: draw a picture that moves
	Build     telemetry.Build
}

// The ports that people expect.
const (
	usualGRPC  = "127.0.0.1:8081"
	usualHTTP  = "127.0.0.1:8080"
	usualEnvoy = "127.0.0.1:10000"
	usualAdmin = "127.0.0.1:9901"
)

// configuration has no warm-up: what the demo prints to paste should show a
// limit from the first request on.
const configuration = `listen: {grpc: "%s", http: "%s", drain: 0s}
limits: {warm_up: {grace: 0s, ramp: 0s}}
`

// startWithin bounds the start of Envoy.
const startWithin = 30 * time.Second

// demo is what runs.
type demo struct {
	o        Options
	dir      string
	server   *server.Server
	upstream *upstream
	envoy    *process.Envoy
	address  string // of Envoy
	people   []person
	started  []func() error // how to stop what was started, in order
}

// Run shows the demo until o.For is over or ctx ends; both are a success.
func Run(ctx context.Context, o Options) (err error) {
	d := &demo{o: o}
	defer func() { err = errors.Join(err, d.stop()) }()
	for _, start := range []func(context.Context) error{d.makeFolder, d.startServer, d.addPeople, d.startUpstream, d.startEnvoy} {
		if err := start(ctx); err != nil {
			if ctx.Err() != nil {
				return nil // interrupted while starting
			}
			return err
		}
	}
	if o.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.For)
		defer cancel()
	}
	d.introduce()
	traffic := d.startTraffic(ctx)
	defer traffic.Wait()
	return d.watch(ctx)
}

// stop ends what was started, the last first.
func (d *demo) stop() error {
	var errs []error
	for _, stop := range slices.Backward(d.started) {
		errs = append(errs, stop())
	}
	return errors.Join(errs...)
}

func (d *demo) makeFolder(context.Context) (err error) {
	if d.dir, err = os.MkdirTemp("", "tollgate-demo-"); err == nil {
		d.started = append(d.started, func() error { return os.RemoveAll(d.dir) })
	}
	return err
}

func (d *demo) startServer(ctx context.Context) error {
	log, err := os.Create(filepath.Join(d.dir, "tollgate.log"))
	if err != nil {
		return err
	}
	d.started = append(d.started, log.Close)
	path := filepath.Join(d.dir, "tollgate.yaml")
	text := fmt.Sprintf(configuration, freeOr(usualGRPC), freeOr(usualHTTP))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	d.server, err = server.Start(ctx, server.Options{
		ConfigPath: path, DataDir: filepath.Join(d.dir, "data"), Log: log, Build: d.o.Build,
	})
	if err != nil {
		return err
	}
	d.started = append(d.started, d.server.Close)
	return nil
}

func (d *demo) startUpstream(context.Context) (err error) {
	if d.upstream, err = startUpstream(); err == nil {
		d.started = append(d.started, d.upstream.stop)
	}
	return err
}

func (d *demo) startEnvoy(ctx context.Context) error {
	var bootstrap bytes.Buffer
	err := envoyconfig.Print(&bootstrap, envoyconfig.Options{
		Mode:     envoyconfig.Fused,
		Listen:   freeOr(usualEnvoy),
		Admin:    freeOr(usualAdmin),
		Upstream: d.upstream.addr,
		Tollgate: []string{d.server.GRPCAddr()},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	d.envoy, err = process.Start(ctx, process.Options{Path: d.o.EnvoyPath, Bootstrap: bootstrap.Bytes()})
	if err != nil {
		return err
	}
	d.started = append(d.started, d.envoy.Stop)
	d.address, err = d.envoy.Listener(ctx, "http")
	return err
}

// freeOr returns the address if nobody has it, else one with a port for the
// kernel to choose.
func freeOr(address string) string {
	lis, err := net.Listen("tcp", address)
	if err != nil {
		return "127.0.0.1:0"
	}
	_ = lis.Close() // it is listened on again at once
	return address
}

// introduce prints what runs where, and what to try.
func (d *demo) introduce() {
	within, over := d.people[0], d.people[1]
	fmt.Fprintf(d.o.Out, `Envoy is at http://%[1]s, Tollgate's admin API and metrics at http://%[2]s (log: %[3]s).
Paste into another terminal:

  # no token: 401
  curl -i http://%[1]s/
  # a token within its limit of %[4]s: 200
  curl -i -H 'x-api-key: %[5]s' http://%[1]s/
  # a token over its limit of %[6]s: 429 once the bucket is empty
  for i in $(seq 20); do curl -s -o /dev/null -w '%%{http_code}\n' -H 'x-api-key: %[7]s' http://%[1]s/; done

`, d.address, d.server.HTTPAddr(), filepath.Join(d.dir, "tollgate.log"), within.limit, within.yours, over.limit, over.yours)
}
