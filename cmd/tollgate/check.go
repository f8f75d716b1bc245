package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/tollgate-dev/tollgate/internal/config"
)

func newCheck() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "check [--config FILE]",
		Short: "Check the configuration and every file it names",
		Long: `Check reads all that serve would read (the configuration, the consumers file,
the rule files, the certificates) and prints every problem as
file:line:column: message. It exits with 1 if there is one, and changes nothing.`,
		Example: "  tollgate check --config tollgate.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			loaded, src, err := config.Load(path, os.LookupEnv)
			if err != nil {
				return err
			}
			for _, w := range loaded.Warnings {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: %v\n", w)
			}
			if path == "" && !config.InRateLimitEnvironment(os.LookupEnv) {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "ok: the defaults (name a file with --config)")
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "ok: %d files\n", len(src.Files))
			return err
		},
	}
	configFlag(cmd, &path)
	return cmd
}

func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVar(path, "config", "", "the configuration `file` (default: built-in, every port on loopback)")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml") // the flag exists
}
