package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/tollgate-dev/tollgate/internal/telemetry"
)

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print version, commit and Go version",
		Example: "  tollgate version",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := build()
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "tollgate %s (commit %s, %s)\n", b.Version, b.Revision, runtime.Version())
			return err
		},
	}
}

// build says which build this is.
func build() telemetry.Build {
	b := telemetry.Build{Version: version, Revision: revision}
	info, ok := debug.ReadBuildInfo()
	if !ok || revision != "unknown" {
		return b
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			b.Revision = s.Value
		}
	}
	return b
}
