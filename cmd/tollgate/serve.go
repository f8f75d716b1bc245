package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tollgate-dev/tollgate/internal/server"
)

func newServe() *cobra.Command {
	var o server.Options
	cmd := &cobra.Command{
		Use:   "serve [--config FILE] [--data-dir DIR]",
		Short: "Run the server",
		Long: `Serve answers Envoy on listen.grpc and people on listen.http. Without --config
every port is on loopback, and consumers are kept in ./tollgate-data.

In the environment of a deployment of envoyproxy/ratelimit (RUNTIME_ROOT,
CONFIG_TYPE, …) and without --config, its variables say what it does.

SIGHUP reloads the files; they are also watched. SIGTERM drains: not ready at
once, decisions go on for listen.drain, then it ends. A second signal quits.`,
		Example: "  tollgate serve --config tollgate.yaml --data-dir /var/lib/tollgate",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Log, o.Build = cmd.ErrOrStderr(), build()
			if !cmd.Flags().Changed("data-dir") {
				o.DataDir = "" // the server's own choice
			}
			return serve(cmd.Context(), o)
		},
	}
	configFlag(cmd, &o.ConfigPath)
	cmd.Flags().StringVar(&o.DataDir, "data-dir", "tollgate-data", "the `folder` of the embedded store")
	_ = cmd.MarkFlagDirname("data-dir") // the flag exists
	return cmd
}

// serve runs until a signal.
func serve(ctx context.Context, o server.Options) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	s, err := server.Start(ctx, o)
	if err != nil {
		return err
	}
	for {
		select {
		case err := <-s.Failed():
			_ = s.Close() // the listener's error is the one to report
			return err
		case sig := <-signals:
			if sig == syscall.SIGHUP {
				_ = s.Reload() // logged
				continue
			}
			return drain(ctx, s, signals)
		}
	}
}

// drain stops in order, or at once with a second signal.
func drain(ctx context.Context, s *server.Server, signals <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Drain(ctx) }()
	for {
		select {
		case err := <-done:
			return err
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				cancel()
				return <-done
			}
		}
	}
}
