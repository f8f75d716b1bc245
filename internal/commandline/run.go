// Package commandline runs a program's commands: what they print when they fail,
// and the exit codes.
package commandline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tollgate-dev/tollgate/descriptors/yamlfile"
)

// Exit codes.
const (
	OK     = 0
	Failed = 1
	Usage  = 2 // the command line, or what it names, is wrong
)

// Run runs a root command with its arguments, reports what went wrong to stderr,
// and returns the exit code.
func Run(ctx context.Context, root *cobra.Command, args []string, stdout, stderr io.Writer) int {
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	started := false // cobra reports what is wrong with a command line before this
	root.PersistentPreRun = func(*cobra.Command, []string) { started = true }
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return OK
	}
	report(stderr, root.Name(), err)
	var usage usageError
	if started && !errors.As(err, &usage) {
		return Failed
	}
	fmt.Fprintf(stderr, "%s: see `%s --help`\n", root.Name(), cmd.CommandPath())
	return Usage
}

// report writes one line for each problem. Those of files begin with their
// place, so that editors and people can jump to it.
func report(w io.Writer, program string, err error) {
	var ps yamlfile.Problems
	if errors.As(err, &ps) {
		for _, p := range ps {
			fmt.Fprintln(w, p.Error())
		}
		return
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(w, "%s: %s\n", program, strings.TrimRight(line, "\n"))
	}
}

// usageError is a wrong command line that only the command itself could see.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Wrong makes an error one of the command line, for the exit code Usage.
func Wrong(err error) error { return usageError{err} }

// Wrongf is Wrong of a new error.
func Wrongf(format string, args ...any) error { return Wrong(fmt.Errorf(format, args...)) }
