package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tollgate-dev/tollgate/internal/admin"
	"github.com/tollgate-dev/tollgate/internal/commandline"
)

// remote is what every verb that calls the admin API has.
type remote struct {
	admin.Client
	output string
}

// remoteFlags adds the flags; what is not given comes from the environment. The
// token's variable is not the flag's default, so that help never prints it.
func remoteFlags(cmd *cobra.Command) *remote {
	r := &remote{}
	f := cmd.PersistentFlags()
	f.StringVar(&r.Server, "server", "", "the admin API's `address` (default: $TOLLGATE_SERVER or http://127.0.0.1:8080)")
	f.StringVar(&r.Token, "admin-token", "", "the admin `token` (default: $TOLLGATE_ADMIN_TOKEN)")
	f.StringVar(&r.output, "output", "table", "table or json")
	completeFlag(cmd, "output", "table", "json")
	return r
}

// ready completes the flags; every verb calls it first.
func (r *remote) ready() error {
	if r.output != "table" && r.output != "json" {
		return commandline.Wrongf("--output %q: want table or json", r.output)
	}
	if r.Server == "" {
		r.Server = os.Getenv("TOLLGATE_SERVER")
	}
	if r.Server == "" {
		r.Server = "http://127.0.0.1:8080"
	}
	if !strings.Contains(r.Server, "://") {
		r.Server = "http://" + r.Server
	}
	if r.Token == "" {
		r.Token = os.Getenv("TOLLGATE_ADMIN_TOKEN")
	}
	return nil
}

// print writes v as JSON, or else the rows, the first of which is the head.
func (r *remote) print(cmd *cobra.Command, v any, rows [][]string) error {
	w := cmd.OutOrStdout()
	if r.output == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	width := 0
	if w == os.Stdout && isTerminal(os.Stdout) {
		width, _, _ = term.GetSize(int(os.Stdout.Fd())) // 0 where it cannot be known
	}
	return writeTable(w, rows, width)
}

// hint adds to an error about what is not there what to do about it. Other
// errors are returned as they are.
func hint(err error, format string, args ...any) error {
	var p *admin.Problem
	if errors.As(err, &p) && p.Status == http.StatusNotFound {
		return fmt.Errorf("%w: "+format, append([]any{err}, args...)...)
	}
	return err
}

// noConsumer is the hint for a call about a consumer.
func noConsumer(err error) error {
	return hint(err, "`tollgate consumer list` shows who there is")
}

// noToken is the hint for a call about a token of a consumer.
func noToken(err error, consumer string) error {
	return hint(err, "`tollgate token list %s` shows its tokens", consumer)
}

// done says what was changed, on a terminal or in a log; scripts that ask for
// JSON get nothing.
func (r *remote) done(cmd *cobra.Command, format string, args ...any) error {
	if r.output == "json" {
		return nil
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), format+"\n", args...)
	return err
}
