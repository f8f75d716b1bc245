package main

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/internal/admin"
	"github.com/tollgate-dev/tollgate/internal/commandline"
)

func newConsumer() *cobra.Command {
	cmd := group("consumer", "List, show, set and remove consumers", "  tollgate consumer set billing --limit 100/s")
	r := remoteFlags(cmd)
	cmd.AddCommand(newConsumerList(r), newConsumerShow(r), newConsumerSet(r), newConsumerRemove(r))
	return cmd
}

func newConsumerList(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List every consumer",
		Example: "  tollgate consumer list --output json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := r.ready(); err != nil {
				return err
			}
			all, err := r.Consumers(cmd.Context())
			if err != nil {
				return err
			}
			return r.print(cmd, admin.ConsumerPage{Consumers: append([]admin.Consumer{}, all...)}, table(all))
		},
	}
}

func newConsumerShow(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:               "show ID",
		ValidArgsFunction: r.completeConsumer,
		Short:             "Show one consumer",
		Example:           "  tollgate consumer show billing",
		Args:              cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := r.ready(); err != nil {
				return err
			}
			c, _, err := r.Consumer(cmd.Context(), args[0])
			if err != nil {
				return noConsumer(err)
			}
			return r.print(cmd, c, table([]admin.Consumer{c}))
		},
	}
}

func table(all []admin.Consumer) [][]string {
	rows := [][]string{{"ID", "PLAN", "LIMITS", "LABELS", "STATE"}}
	for _, c := range all {
		state := "enabled"
		if c.Disabled {
			state = "disabled"
		}
		var labels []string
		for _, k := range slices.Sorted(maps.Keys(c.Labels)) {
			labels = append(labels, k+"="+c.Labels[k])
		}
		rows = append(rows, []string{c.ID, orDash(c.Plan), limitsText(c), orDash(strings.Join(labels, ",")), state})
	}
	return rows
}

func limitsText(c admin.Consumer) string {
	switch {
	case c.Limits.Unlimited():
		return "none"
	case len(c.Limits) == 0 && c.Plan != "":
		return "(the plan's)"
	case len(c.Limits) == 0:
		return "(default)"
	}
	var texts []string
	for _, l := range c.Limits {
		texts = append(texts, l.String())
	}
	return strings.Join(texts, "; ")
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// consumerFlags are what `consumer set` can change.
type consumerFlags struct {
	limit, plan string
	labels      []string
	disabled    bool
}

func newConsumerSet(r *remote) *cobra.Command {
	var f consumerFlags
	cmd := &cobra.Command{
		Use:               "set ID",
		ValidArgsFunction: r.completeConsumer,
		Short:             "Add a consumer or change one",
		Long: `Set adds a consumer, or changes what is named and leaves the rest as it is.
The change is in force when the command returns.`,
		Example: `  tollgate consumer set billing --limit 100/s --label team=payments
  tollgate consumer set billing --disabled`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := r.ready(); err != nil {
				return err
			}
			return r.set(cmd, args[0], f)
		},
	}
	cmd.Flags().StringVar(&f.limit, "limit", "", "a `rate` such as 100/s; none: unlimited; default: the plan's, or the default")
	cmd.Flags().StringVar(&f.plan, "plan", "", "the plan; empty: none")
	cmd.Flags().StringArrayVar(&f.labels, "label", nil, "`KEY=VALUE`, may be repeated; KEY= removes the label")
	cmd.Flags().BoolVar(&f.disabled, "disabled", false, "refuse the consumer with 403; --disabled=false enables it again")
	return cmd
}

// attempts is how often set reads a consumer anew that others change as well.
const attempts = 20

func (r *remote) set(cmd *cobra.Command, id string, f consumerFlags) error {
	change, err := f.change(cmd)
	if err != nil {
		return err
	}
	if err := consumers.CheckID(id); err != nil {
		return commandline.Wrong(err)
	}
	for try := 1; ; try++ {
		c, etag, err := r.Consumer(cmd.Context(), id)
		var p *admin.Problem
		if errors.As(err, &p) && p.Status == http.StatusNotFound {
			c, etag, err = admin.Consumer{ID: id}, "", nil
		}
		if err != nil {
			return err
		}
		change(&c)
		err = r.PutConsumer(cmd.Context(), c, etag)
		if errors.As(err, &p) && p.Status == http.StatusConflict && try < attempts {
			continue
		}
		if err != nil {
			return err
		}
		return r.done(cmd, "consumer %s: %s", id, limitsText(c))
	}
}

// change checks the flags and returns what they do to a consumer.
func (f *consumerFlags) change(cmd *cobra.Command) (func(*admin.Consumer), error) {
	var limits consumers.Limits
	if cmd.Flags().Changed("limit") {
		var err error
		if limits, err = parseLimits(f.limit); err != nil {
			return nil, commandline.Wrongf("--limit %q: %w", f.limit, err)
		}
	}
	labels := map[string]string{}
	for _, label := range f.labels {
		key, value, ok := strings.Cut(label, "=")
		if !ok || key == "" {
			return nil, commandline.Wrongf("--label %q: want KEY=VALUE", label)
		}
		labels[key] = value
	}
	return func(c *admin.Consumer) {
		if cmd.Flags().Changed("limit") {
			c.Limits = limits
		}
		if cmd.Flags().Changed("plan") {
			c.Plan = f.plan
		}
		if cmd.Flags().Changed("disabled") {
			c.Disabled = f.disabled
		}
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		maps.Copy(c.Labels, labels)
		maps.DeleteFunc(c.Labels, func(_, value string) bool { return value == "" })
	}, nil
}

func parseLimits(s string) (consumers.Limits, error) {
	if s == "default" {
		return nil, nil
	}
	l, err := consumers.ParseLimit(s)
	switch {
	case err != nil:
		return nil, err
	case l == nil:
		return consumers.Limits{}, nil
	}
	return consumers.Limits{*l}, nil
}

func newConsumerRemove(r *remote) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:               "remove ID",
		ValidArgsFunction: r.completeConsumer,
		Short:             "Remove a consumer and all its tokens",
		Example:           "  tollgate consumer remove billing --yes",
		Args:              cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := r.ready(); err != nil {
				return err
			}
			if err := confirm(cmd, yes, fmt.Sprintf("Remove consumer %s and all its tokens?", args[0])); err != nil {
				return err
			}
			if err := r.RemoveConsumer(cmd.Context(), args[0]); err != nil {
				return noConsumer(err)
			}
			return r.done(cmd, "removed consumer %s", args[0])
		},
	}
	yesFlag(cmd, &yes)
	return cmd
}
