package main

import (
	"github.com/spf13/cobra"

	"github.com/tollgate-dev/tollgate/internal/admin"
	"github.com/tollgate-dev/tollgate/internal/commandline"
	"github.com/tollgate-dev/tollgate/internal/config"
)

func newSettings() *cobra.Command {
	cmd := group("settings", "Get and set the global mode, the default limit and the log level", "  tollgate settings set --mode shadow")
	r := remoteFlags(cmd)
	cmd.AddCommand(newSettingsGet(r), newSettingsSet(r))
	return cmd
}

func newSettingsGet(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "get",
		Short:   "Show the settings in force",
		Example: "  tollgate settings get",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := r.ready(); err != nil {
				return err
			}
			s, err := r.Settings(cmd.Context())
			if err != nil {
				return err
			}
			return r.settings(cmd, s)
		},
	}
}

func newSettingsSet(r *remote) *cobra.Command {
	var mode, limit, level string
	cmd := &cobra.Command{
		Use:   "set [--mode MODE] [--default-limit RATE] [--log-level LEVEL]",
		Short: "Change settings; what is not named stays",
		Long: `Set changes the global settings. They are kept over restarts, and win over the
configuration file until the value in the file changes.`,
		Example: "  tollgate settings set --mode shadow --default-limit 50/s",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := r.ready(); err != nil {
				return err
			}
			var s admin.Settings
			if cmd.Flags().Changed("mode") {
				if _, err := config.ParseMode(mode); err != nil {
					return commandline.Wrongf("--mode %w", err)
				}
				s.Mode = &mode
			}
			if cmd.Flags().Changed("default-limit") {
				if _, err := config.ParseDefault(limit); err != nil {
					return commandline.Wrongf("--default-limit %q: %w", limit, err)
				}
				s.DefaultLimit = &limit
			}
			if cmd.Flags().Changed("log-level") {
				if _, err := config.ParseLevel(level); err != nil {
					return commandline.Wrongf("--log-level %w", err)
				}
				s.LogLevel = &level
			}
			if s == (admin.Settings{}) {
				return commandline.Wrongf("want --mode, --default-limit or --log-level")
			}
			now, err := r.SetSettings(cmd.Context(), s)
			if err != nil {
				return err
			}
			return r.settings(cmd, now)
		},
	}
	cmd.Flags().StringVar(&mode, "mode", "", "enforce, shadow (decide and count, refuse nobody) or off")
	completeFlag(cmd, "mode", "enforce", "shadow", "off")
	cmd.Flags().StringVar(&level, "log-level", "", "debug, info, warn or error")
	completeFlag(cmd, "log-level", "debug", "info", "warn", "error")
	cmd.Flags().StringVar(&limit, "default-limit", "", "a `rate` such as 20/s, or none: unlimited")
	return cmd
}

func (r *remote) settings(cmd *cobra.Command, s admin.Settings) error {
	return r.print(cmd, s, [][]string{{"MODE", "DEFAULT LIMIT", "LOG LEVEL"}, {value(s.Mode), value(s.DefaultLimit), value(s.LogLevel)}})
}

func value(p *string) string {
	if p == nil {
		return "-"
	}
	return *p
}
