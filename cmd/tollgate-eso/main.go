// Tollgate-eso is Tollgate's companion for External Secrets: it refreshes
// external secrets when a webhook says that a record has changed, shows in the
// stores' status that an upstream is under pressure, and restores many secrets
// in batches that the upstream allows.
//
// Run `tollgate-eso help` for the commands. main only parses and exits; each
// verb is a file of its own.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // an image from scratch has no files of time zones

	"github.com/spf13/cobra"

	"github.com/tollgate-dev/tollgate/internal/commandline"
)

// version is set by the build.
var version = "devel"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	context.AfterFunc(ctx, stop) // a second signal quits
	os.Exit(commandline.Run(ctx, newRoot(), os.Args[1:], os.Stdout, os.Stderr))
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "tollgate-eso",
		Short: "Tollgate's companion for External Secrets Operator",
		Long: `Tollgate keeps calls to an upstream inside what it allows. The companion makes
fewer of them needed, and lets Kubernetes see the pressure. External Secrets and
its objects stay as they are.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return commandline.Wrongf("%s: no such command %q", cmd.CommandPath(), args[0])
		},
	}
	root.AddCommand(newRun(), newPlan(), newRestore())
	return root
}
