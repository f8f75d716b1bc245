package main

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tollgate-dev/tollgate/internal/commandline"
	"github.com/tollgate-dev/tollgate/internal/demo"
)

func newDemo() *cobra.Command {
	var o demo.Options
	cmd := &cobra.Command{
		Use:   "demo [--for 30s] [--envoy PATH]",
		Short: "Show it: Tollgate, an API and a real Envoy on loopback",
		Long: `Demo runs Tollgate, a small API and a real Envoy on loopback, with three
consumers and some traffic. It prints lines to paste, then who is admitted and
refused. Envoy comes from --envoy, $ENVOY, the PATH, or the folder that make
fills. Nothing is left behind.`,
		Example: "  tollgate demo --for 30s",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.For < 0 {
				return commandline.Wrongf("--for %s: want a duration that is not negative", o.For)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			o.Out, o.Live, o.Build = cmd.OutOrStdout(), isTerminal(os.Stdout), build()
			return demo.Run(ctx, o)
		},
	}
	cmd.Flags().DurationVar(&o.For, "for", 0, "how `long` (default: until Ctrl-C)")
	cmd.Flags().StringVar(&o.EnvoyPath, "envoy", "", "the Envoy `binary` (default: found)")
	_ = cmd.MarkFlagFilename("envoy") // the flag exists
	return cmd
}
