// Tollgate answers Envoy's question whether a request may pass: it finds the
// consumer's token in the request and takes from that token's limits.
//
// Run `tollgate help` for the commands. main only parses and exits; each verb
// is a file of its own.
package main

import (
	"context"
	"os"
	_ "time/tzdata" // quotas have time zones, and an image from scratch has no files of them

	"github.com/spf13/cobra"

	"github.com/tollgate-dev/tollgate/internal/commandline"
)

// Set by the build; a revision that is not is what Go recorded.
var (
	version  = "devel"
	revision = "unknown"
)

func main() {
	os.Exit(commandline.Run(context.Background(), newRoot(), arguments(os.Args), os.Stdout, os.Stderr))
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "tollgate",
		Short: "Rate limits per consumer token, for APIs behind Envoy",
		Long: `Tollgate is asked by Envoy whether a request may pass. It finds the consumer
token in the request, takes from that token's limits, and answers: admit, 401,
403 or 429. No application changes.`,
		Example: `  tollgate demo                       # see it throttle, with a real Envoy
  tollgate serve                      # run the server
  tollgate consumer set billing --limit 100/s
  tollgate token issue billing prod   # prints the token, once
  tollgate top                        # who is admitted and refused, live
  tollgate envoy fused > envoy.yaml   # an Envoy that asks Tollgate`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknown(cmd, args[0])
		},
	}
	root.AddCommand(newServe(), newRateLimit(), newCheck(), newDemo(), newEnvoy(),
		newConsumer(), newToken(), newSettings(), newTop(), newBackup(), newRestore(), newVersion())
	return root
}

// group makes a command that only holds others.
func group(use, short, example string, subcommands ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{Use: use, Short: short, Example: example, RunE: func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return commandline.Wrongf("%s: want one of its commands", cmd.CommandPath())
		}
		return unknown(cmd, args[0])
	}}
	g.AddCommand(subcommands...)
	return g
}

func unknown(cmd *cobra.Command, name string) error {
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		return commandline.Wrongf("unknown command %q: did you mean %q?", name, near[0])
	}
	return commandline.Wrongf("unknown command %q", name)
}
