package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tollgate-dev/tollgate/internal/config"
	"github.com/tollgate-dev/tollgate/internal/server"
)

// rateLimitName is the program of envoyproxy/ratelimit's image, /bin/ratelimit.
const rateLimitName = "ratelimit"

// arguments returns the command line after the program's name. Called by the
// name of the program that it replaces, Tollgate is that program; likewise
// where a container's command names it behind the image's own entry point.
func arguments(args []string) []string {
	last := args[len(args)-1]
	if len(args) == 1 && filepath.Base(last) == rateLimitName || len(args) == 2 && last == "/bin/"+rateLimitName {
		return []string{rateLimitName}
	}
	return args[1:]
}

func newRateLimit() *cobra.Command {
	return &cobra.Command{
		Use:   rateLimitName,
		Short: "Run the server in place of envoyproxy/ratelimit",
		Long: `Ratelimit is serve in the environment of envoyproxy/ratelimit, whose variables
(RUNTIME_ROOT, CONFIG_TYPE, …) say what it does, with its defaults where they are
not set: its ports, 8080, 8081 and 6070, are open to everybody. Called by the name
ratelimit, and without arguments, tollgate does the same.`,
		Example: "  RUNTIME_ROOT=/data RUNTIME_SUBDIRECTORY=ratelimit tollgate ratelimit",
		Args:    cobra.NoArgs,
		Hidden:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), server.Options{Lookup: config.AsRateLimit(os.LookupEnv), Log: cmd.ErrOrStderr(), Build: build()})
		},
	}
}
