package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client/config"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
	"github.com/tollgate-dev/tollgate/internal/commandline"
)

// selectFlags are the flags that say which objects a verb is about: those that
// draw on an upstream.
type selectFlags struct {
	upstream string
	provider string
	stores   []string
}

func (f *selectFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.upstream, "upstream", "keeper", "the upstream's id in Tollgate")
	c.Flags().StringVar(&f.provider, "provider", "keepersecurity", "the provider of its stores")
	c.Flags().StringSliceVar(&f.stores, "store", nil, "only these stores: ClusterSecretStore/NAME or SecretStore/NAMESPACE/NAME")
}

// selector returns what the flags select.
func (f *selectFlags) selector() (eso.Selector, error) {
	s := eso.Selector{Provider: f.provider}
	for _, name := range f.stores {
		store, ok := eso.ParseStore(name)
		if !ok {
			return s, commandline.Wrongf("--store %q: want ClusterSecretStore/NAME or SecretStore/NAMESPACE/NAME", name)
		}
		s.Stores = append(s.Stores, store)
	}
	return s, nil
}

// findCluster returns the cluster that kubectl would use, or that this runs in.
func findCluster() (*rest.Config, error) {
	cluster, err := config.GetConfig()
	if err != nil {
		return nil, fmt.Errorf("no cluster: set KUBECONFIG or run in one: %w", err)
	}
	return cluster, nil
}

// scheme knows External Secrets' objects.
func scheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	return s, eso.AddToScheme(s)
}
