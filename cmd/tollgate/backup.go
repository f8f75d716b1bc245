package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tollgate-dev/tollgate/descriptors/consumers/embedded"
)

func newBackup() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Copy a running server's store to a file",
		Long: `Backup copies the embedded store of a server, while it runs: consumers, hashes of
tokens, settings and what limiters must remember. FILE is written whole or not
at all; - is the standard output. It holds no secret that opens anything.`,
		Example: `  tollgate backup tollgate-$(date +%F).db
  tollgate restore tollgate-2026-11-24.db --data-dir /var/lib/tollgate`,
		Args: cobra.ExactArgs(1),
	}
	r := remoteFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := r.ready(); err != nil {
			return err
		}
		if args[0] == "-" {
			return r.Backup(cmd.Context(), cmd.OutOrStdout())
		}
		err := written(args[0], func(w io.Writer) error { return r.Backup(cmd.Context(), w) })
		if err != nil {
			return err
		}
		return r.done(cmd, "backed up to %s", args[0])
	}
	return cmd
}

// written makes a file that is there whole or not at all, for its owner only.
func written(path string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	err = write(f)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

func newRestore() *cobra.Command {
	var dir string
	var replace bool
	cmd := &cobra.Command{
		Use:   "restore FILE [--data-dir DIR]",
		Short: "Put a backup into a data directory, to start a server on",
		Long: `Restore reads all of a backup, and puts it into the data directory of a server
that does not run. A store that is there already stays as it is, or with
--replace is kept beside it as tollgate.db.replaced. - is the standard input.

Tokens that were issued since the backup are unknown afterwards, and those that
were revoked since are valid again: revoke them anew.`,
		Example: "  tollgate restore tollgate-2026-11-24.db --data-dir /var/lib/tollgate",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := cmd.InOrStdin()
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return err
			}
			did, err := embedded.Restore(in, filepath.Join(dir, embedded.FileName), embedded.Replace(replace))
			if errors.Is(err, embedded.ErrOccupied) {
				return fmt.Errorf("%w: name another --data-dir, or say --replace to move that store aside", err)
			}
			if err != nil {
				return fmt.Errorf("restore %s: %w", args[0], err)
			}
			if did.Replaced != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "the store that was there is now %s\n", did.Replaced)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "restored %d consumers with %d tokens to %s\n", did.Consumers, did.Tokens, dir)
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "data-dir", "tollgate-data", "the `folder` of the embedded store")
	_ = cmd.MarkFlagDirname("data-dir") // the flag exists
	cmd.Flags().BoolVar(&replace, "replace", false, "move a store that is there aside")
	return cmd
}
