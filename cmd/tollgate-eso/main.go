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
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	_ "time/tzdata" // an image from scratch has no files of time zones

	"github.com/spf13/cobra"

	"github.com/tollgate-dev/tollgate/descriptors/yamlfile"
)

// version is set by the build.
var version = "devel"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	context.AfterFunc(ctx, stop) // a second signal quits
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// run is the whole program; it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return execute(ctx, newRoot(), args, stdout, stderr)
}

func execute(ctx context.Context, root *cobra.Command, args []string, stdout, stderr io.Writer) int {
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	started := false // cobra reports what is wrong with a command line before this
	root.PersistentPreRun = func(*cobra.Command, []string) { started = true }
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	report(stderr, err)
	var usage usageError
	if started && !errors.As(err, &usage) {
		return exitFailed
	}
	fmt.Fprintf(stderr, "tollgate-eso: see `%s --help`\n", cmd.CommandPath())
	return exitUsage
}

// report writes one line for each problem. Those of files begin with their
// place, so that editors and people can jump to it.
func report(w io.Writer, err error) {
	var ps yamlfile.Problems
	if errors.As(err, &ps) {
		for _, p := range ps {
			fmt.Fprintln(w, p.Error())
		}
		return
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(w, "tollgate-eso: %s\n", strings.TrimRight(line, "\n"))
	}
}

// usageError is a wrong command line that only the command itself could see.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
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
			return usagef("%s: no such command %q", cmd.CommandPath(), args[0])
		},
	}
	root.AddCommand(newRun(), newPlan(), newRestore())
	return root
}
