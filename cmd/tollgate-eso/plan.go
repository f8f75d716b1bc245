package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/manifests"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/plan"
	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
	"github.com/tollgate-dev/tollgate/internal/admin"
	"github.com/tollgate-dev/tollgate/internal/commandline"
	tollgateconfig "github.com/tollgate-dev/tollgate/internal/config"
)

// errDoesNotFit is what plan ends with when the upstream allows too little. The
// report has said why.
var errDoesNotFit = errors.New("it does not fit")

// planFlags are the flags of plan.
type planFlags struct {
	files      []string
	cluster    bool
	namespaces int
	output     string
	selectFlags

	server, config string // where the allowance is read
	limits         []string
	budget         []string
	price          float64
	call           time.Duration
}

// newPlan is the verb that calculates.
func newPlan() *cobra.Command {
	var f planFlags
	c := &cobra.Command{
		Use:   "plan (-f FILE|FOLDER|- | --cluster)",
		Short: "What external secrets cost an upstream, whether it fits, and how to spread them",
		Long: `Counts the calls of ExternalSecrets, ClusterExternalSecrets and PushSecrets, a
day and a month, and holds them against what the upstream allows: the peak, the
budget, the cost, the smallest refreshInterval that is safe for all, and a plan
that spreads them so that no more come together than may. Without --server,
--config or --limit the upstream is one of Tollgate's preset keeper.

Exit code: 0 it fits, 1 it does not, 2 the input or the command line is wrong.`,
		Example: `  tollgate-eso plan -f manifests/
  kubectl get externalsecrets,secretstores -A -o yaml | tollgate-eso plan -f - --budget 10000/day --price 0.002
  tollgate-eso plan --cluster --server http://127.0.0.1:8080
  tollgate-eso plan -f manifests/ --limit '{window: 200/10s, margin: 10%}'
  tollgate-eso plan -f manifests/ -o shell > spread.sh`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := c.Flags()
	flags.StringSliceVarP(&f.files, "file", "f", nil, "manifests: a file, a folder, or - for standard input")
	flags.BoolVar(&f.cluster, "cluster", false, "read the cluster that kubectl would use")
	flags.IntVar(&f.namespaces, "namespaces", 0, "how many namespaces a ClusterExternalSecret has whose namespaces are not in the input")
	flags.StringVarP(&f.output, "output", "o", "text", "text, json, yaml, or shell: commands that follow the plan")
	f.add(c)
	flags.StringVar(&f.server, "server", "", "Tollgate's admin API, for what the upstream allows now; token: TOLLGATE_ADMIN_TOKEN")
	flags.StringVar(&f.config, "config", "", "Tollgate's configuration file, for what the upstream allows")
	flags.StringArrayVar(&f.limits, "limit", nil, "a limit as in Tollgate's configuration: '{idle_reset: 100/10s, margin: 10%}'")
	flags.StringArrayVar(&f.budget, "budget", nil, "calls in a period, as 10000/day or 50000/month")
	flags.Float64Var(&f.price, "price", 0, "what a call costs")
	flags.DurationVar(&f.call, "call-time", 50*time.Millisecond, "how long a call takes: External Secrets makes one after the other")
	return c
}

func (f *planFlags) run(cmd *cobra.Command) error {
	write, ok := map[string]func(*plan.Report, io.Writer) error{
		"text": (*plan.Report).Text, "json": (*plan.Report).JSON, "yaml": (*plan.Report).YAML, "shell": (*plan.Report).Shell,
	}[f.output]
	sources := 0
	for _, given := range []bool{f.server != "", f.config != "", len(f.limits) > 0} {
		if given {
			sources++
		}
	}
	switch {
	case len(f.files) == 0 && !f.cluster:
		return commandline.Wrongf("nothing to plan: name manifests with --file, or the cluster with --cluster")
	case sources > 1:
		return commandline.Wrongf("--server, --config and --limit say the same: want one of them")
	case !ok:
		return commandline.Wrongf("--output %q: want text, json, yaml or shell", f.output)
	case f.call < 0, f.namespaces < 0, !(f.price >= 0):
		return commandline.Wrongf("--call-time, --namespaces and --price: want none below 0")
	}
	selector, err := f.selector()
	if err != nil {
		return err
	}
	set, err := f.objects(cmd.Context(), cmd.InOrStdin())
	if err != nil {
		return err
	}
	allowance, err := f.allowance(cmd.Context())
	if err != nil {
		return err
	}
	objects := set.Demand(selector)
	report := plan.Make(objects, allowance)
	if err := write(report, cmd.OutOrStdout()); err != nil {
		return err
	}
	if !report.Fits() {
		return errDoesNotFit
	}
	return nil
}

// objects reads the manifests, the cluster, or both. What is wrong with a manifest
// is the user's.
func (f *planFlags) objects(ctx context.Context, stdin io.Reader) (*plan.Set, error) {
	set := plan.NewSet()
	if f.cluster {
		r, err := clusterClient()
		if err != nil {
			return nil, err
		}
		if set, err = plan.List(ctx, r); err != nil {
			return nil, err
		}
	}
	objects, err := manifests.Read(f.files, stdin)
	if err := errors.Join(err, set.Add(objects), set.Expand(f.namespaces)); err != nil {
		return nil, commandline.Wrong(err)
	}
	return set, nil
}

// clusterClient asks the cluster that kubectl would use, without a cache.
func clusterClient() (client.Client, error) {
	cluster, err := findCluster()
	if err != nil {
		return nil, err
	}
	known, err := scheme()
	if err != nil {
		return nil, err
	}
	return client.New(cluster, client.Options{Scheme: known})
}

// allowance returns what the upstream allows, with what flags say in its place.
func (f *planFlags) allowance(ctx context.Context) (plan.Allowance, error) {
	a, err := f.readAllowance(ctx)
	if err != nil {
		return a, err
	}
	if len(f.budget) > 0 {
		a.Budgets = nil
		for _, s := range f.budget {
			b, err := plan.ParseBudget(s)
			if err != nil {
				return a, commandline.Wrongf("--budget: %w", err)
			}
			a.Budgets = append(a.Budgets, b)
		}
	}
	a.Price, a.Call = cmp.Or(f.price, a.Price), f.call
	return a, nil
}

func (f *planFlags) readAllowance(ctx context.Context) (plan.Allowance, error) {
	var all []*upstreams.Config
	switch {
	case f.server != "":
		c := admin.Client{Server: f.server, Token: os.Getenv("TOLLGATE_ADMIN_TOKEN")}
		list, err := c.Upstreams(ctx)
		if err != nil {
			return plan.Allowance{}, err
		}
		i := slices.IndexFunc(list, func(u admin.Upstream) bool { return u.ID == f.upstream })
		if i < 0 {
			return plan.Allowance{}, commandline.Wrongf("--upstream %s: Tollgate has none of this id", f.upstream)
		}
		return plan.FromServer(list[i])
	case f.config != "":
		loaded, _, err := tollgateconfig.Load(f.config, os.LookupEnv)
		if err != nil {
			return plan.Allowance{}, commandline.Wrong(err)
		}
		all = loaded.Config.Upstreams
	default:
		document := "upstreams: [{id: " + f.upstream + ", preset: keeper"
		if len(f.limits) > 0 {
			document += ", limits: [" + strings.Join(f.limits, ", ") + "]"
		}
		var err error
		if all, err = tollgateconfig.ParseUpstreams("--limit", []byte(document+"}]")); err != nil {
			return plan.Allowance{}, commandline.Wrong(err)
		}
	}
	i := slices.IndexFunc(all, func(u *upstreams.Config) bool { return u.ID == f.upstream })
	if i < 0 {
		return plan.Allowance{}, commandline.Wrongf("--upstream %s: %s has none of this id", f.upstream, f.config)
	}
	return plan.FromConfig(all[i]), nil
}
