package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tollgate-dev/tollgate/internal/admin"
	"github.com/tollgate-dev/tollgate/internal/commandline"
)

func newToken() *cobra.Command {
	cmd := group("token", "Issue, list, revoke and rotate tokens", "  tollgate token issue billing prod")
	r := remoteFlags(cmd)
	cmd.AddCommand(newTokenIssue(r), newTokenList(r), newTokenRevoke(r), newTokenRotate(r))
	return cmd
}

func newTokenIssue(r *remote) *cobra.Command {
	var expires string
	cmd := &cobra.Command{
		Use:               "issue ID TOKEN_ID",
		ValidArgsFunction: r.completeConsumer,
		Short:             "Issue a token to a consumer and print it, once",
		Long: `Issue makes a token and prints it. Only its hash is kept: the token cannot be
shown again.`,
		Example: `  TOKEN=$(tollgate token issue billing prod)
  tollgate token issue billing trial --expires 720h`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := r.ready(); err != nil {
				return err
			}
			until, err := parseExpiry(expires)
			if err != nil {
				return commandline.Wrongf("--expires %q: %w", expires, err)
			}
			issued, err := r.IssueToken(cmd.Context(), args[0], admin.NewToken{ID: args[1], Expires: until})
			if err != nil {
				return hint(err, "add it with `tollgate consumer set %s`", args[0])
			}
			return r.secret(cmd, issued)
		},
	}
	cmd.Flags().StringVar(&expires, "expires", "", "when: a `time` such as 2027-01-01T00:00:00Z, or a duration from now such as 720h (default: never)")
	return cmd
}

// parseExpiry reads a time or a duration from now.
func parseExpiry(s string) (*time.Time, error) {
	if s == "" {
		return nil, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		t := time.Now().UTC().Add(d).Truncate(time.Second)
		return &t, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return nil, fmt.Errorf("want a time such as 2027-01-01T00:00:00Z, or a duration such as 720h")
	}
	return &t, nil
}

// secret prints nothing but the token, for $(…); JSON has the rest.
func (r *remote) secret(cmd *cobra.Command, issued admin.Issued) error {
	return r.print(cmd, issued, [][]string{{issued.Token}})
}

func newTokenList(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:               "list ID",
		ValidArgsFunction: r.completeConsumer,
		Short:             "List a consumer's tokens, without their secrets",
		Example:           "  tollgate token list billing",
		Args:              cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := r.ready(); err != nil {
				return err
			}
			tokens, err := r.Tokens(cmd.Context(), args[0])
			if err != nil {
				return noConsumer(err)
			}
			rows := [][]string{{"TOKEN", "EXPIRES", "CREATED"}}
			for _, t := range tokens {
				rows = append(rows, []string{t.ID, when(t.Expires, "never"), when(t.Created, "-")})
			}
			return r.print(cmd, admin.Tokens{Tokens: tokens}, rows)
		},
	}
}

func when(t *time.Time, otherwise string) string {
	if t == nil {
		return otherwise
	}
	return t.UTC().Format(time.RFC3339)
}

func newTokenRevoke(r *remote) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:               "revoke ID TOKEN_ID",
		ValidArgsFunction: r.completeIDs,
		Short:             "End a token at once",
		Example:           "  tollgate token revoke billing prod --yes",
		Args:              cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := r.ready(); err != nil {
				return err
			}
			if err := confirm(cmd, yes, fmt.Sprintf("Revoke token %s of consumer %s?", args[1], args[0])); err != nil {
				return err
			}
			if err := r.RevokeToken(cmd.Context(), args[0], args[1]); err != nil {
				return noToken(err, args[0])
			}
			return r.done(cmd, "revoked token %s of consumer %s", args[1], args[0])
		},
	}
	yesFlag(cmd, &yes)
	return cmd
}

func newTokenRotate(r *remote) *cobra.Command {
	var overlap time.Duration
	cmd := &cobra.Command{
		Use:               "rotate ID TOKEN_ID",
		ValidArgsFunction: r.completeIDs,
		Short:             "Give a token a new secret and print it, once",
		Long: `Rotate gives a token a new secret. Its limits and what is used of them stay.
The old secret works on for --overlap, so that clients can change over.`,
		Example: "  tollgate token rotate billing prod --overlap 1h",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := r.ready(); err != nil {
				return err
			}
			if overlap < 0 {
				return commandline.Wrongf("--overlap %s: want a duration that is not negative", overlap)
			}
			issued, err := r.RotateToken(cmd.Context(), args[0], args[1], admin.Rotation{Overlap: overlap.String()})
			if err != nil {
				return noToken(err, args[0])
			}
			return r.secret(cmd, issued)
		},
	}
	cmd.Flags().DurationVar(&overlap, "overlap", 0, "how `long` the old secret works on")
	return cmd
}
