package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tollgate-dev/tollgate/internal/admin"
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
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return r
}

// ready completes the flags; every verb calls it first.
func (r *remote) ready() error {
	if r.output != "table" && r.output != "json" {
		return usagef("--output %q: want table or json", r.output)
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
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
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
