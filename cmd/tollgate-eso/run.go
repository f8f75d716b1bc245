package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/companion"
	companionconfig "github.com/tollgate-dev/tollgate/cmd/tollgate-eso/config"
	"github.com/tollgate-dev/tollgate/descriptors/yamlfile"
)

// newRun is the verb that serves.
func newRun() *cobra.Command {
	var file, dataDir string
	c := &cobra.Command{
		Use:   "run",
		Short: "Serve: webhooks, force-syncs, and the pressure in the stores' status",
		Long: `Receives webhooks and makes External Secrets read what has changed, no faster
than the upstream allows, and writes the condition Throttled into the stores of
an upstream that is paused. The cluster is the one that kubectl would use, or
the one that this runs in. One process at a time.`,
		Example: `  tollgate-eso run                                  # Keeper's stores, no webhook
  tollgate-eso run --config tollgate-eso.yaml --data-dir /var/lib/tollgate-eso`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := readConfig(file)
			if err != nil {
				return err
			}
			cluster, err := findCluster()
			if err != nil {
				return err
			}
			handler := slog.NewJSONHandler(cmd.ErrOrStderr(), nil)
			log.SetLogger(logr.FromSlogHandler(handler))
			return serve(cmd.Context(), cluster, companion.Options{Config: cfg, DataDir: dataDir, Log: slog.New(handler)})
		},
	}
	c.Flags().StringVar(&file, "config", "", "configuration; none: the defaults")
	c.Flags().StringVar(&dataDir, "data-dir", "tollgate-eso-data", "where events are kept until they are done")
	return c
}

func serve(ctx context.Context, cluster *rest.Config, o companion.Options) error {
	c, err := companion.New(ctx, cluster, o)
	if err != nil {
		return err
	}
	return c.Run(ctx)
}

// readConfig reads a file, or returns the defaults where none is named.
func readConfig(file string) (*companionconfig.Config, error) {
	if file == "" {
		return companionconfig.Default(), nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return companionconfig.Parse(filepath.Clean(file), data, yamlfile.Options{Lookup: os.LookupEnv})
}
