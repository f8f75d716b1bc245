package config_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/internal/config"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestWatchSeesEveryWayToChangeAFile(t *testing.T) {
	for _, c := range []struct {
		name     string
		prepare  func(t *testing.T, dir string) config.Sources
		change   func(t *testing.T, dir string)
		wantText string
	}{{
		name: "written in place",
		prepare: func(t *testing.T, dir string) config.Sources {
			write(t, dir+"/a.yaml", "old")
			return config.Sources{Files: []string{dir + "/a.yaml"}}
		},
		change: func(t *testing.T, dir string) { write(t, dir+"/a.yaml", "new") },
	}, {
		name: "replaced by rename, as editors do",
		prepare: func(t *testing.T, dir string) config.Sources {
			write(t, dir+"/a.yaml", "old")
			return config.Sources{Files: []string{dir + "/a.yaml"}}
		},
		change: func(t *testing.T, dir string) {
			write(t, dir+"/.a.swp", "new")
			if err := os.Rename(dir+"/.a.swp", dir+"/a.yaml"); err != nil {
				t.Fatal(err)
			}
		},
	}, {
		name: "ConfigMap: ..data swapped",
		prepare: func(t *testing.T, dir string) config.Sources {
			write(t, dir+"/..1/a.yaml", "old")
			write(t, dir+"/..2/a.yaml", "new")
			link(t, "..1", dir+"/..data")
			link(t, "..data/a.yaml", dir+"/a.yaml")
			return config.Sources{Files: []string{dir + "/a.yaml"}}
		},
		change: func(t *testing.T, dir string) { link(t, "..2", dir+"/..data") },
	}, {
		name: "the folder is a link that is swapped",
		prepare: func(t *testing.T, dir string) config.Sources {
			write(t, dir+"/r1/config/a.yaml", "old")
			write(t, dir+"/r2/config/a.yaml", "new")
			link(t, dir+"/r1", dir+"/current")
			return config.Sources{Files: []string{dir + "/current/config/a.yaml"}}
		},
		change: func(t *testing.T, dir string) { link(t, dir+"/r2", dir+"/current") },
	}, {
		name: "a missing file appears",
		prepare: func(_ *testing.T, dir string) config.Sources {
			return config.Sources{Files: []string{dir + "/a.yaml"}}
		},
		change: func(t *testing.T, dir string) { write(t, dir+"/a.yaml", "new") },
	}, {
		name: "a new file matches a pattern",
		prepare: func(t *testing.T, dir string) config.Sources {
			write(t, dir+"/rules/a.yaml", "old")
			return config.Sources{Patterns: []string{dir + "/rules/*.yaml"}}
		},
		change: func(t *testing.T, dir string) { write(t, dir+"/rules/b.yaml", "new") },
	}} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			src := c.prepare(t, dir)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			changed, done := make(chan struct{}, 100), make(chan error, 1)
			go func() {
				done <- config.Watch(ctx, src, func() config.Sources { changed <- struct{}{}; return src })
			}()
			await := func(what string) {
				t.Helper()
				select {
				case <-changed:
				case <-ctx.Done():
					t.Fatalf("not told of %s", what)
				}
			}
			await("the start") // from here on everything is watched
			for range 2 {      // again: the new file is watched like the old one
				c.change(t, dir)
				await("the change")
				for len(changed) > 0 {
					<-changed
				}
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestWatchSeesWhatChangesBeforeItLooks: a file that was led to a moment ago
// changes after it was read and before it is watched.
func TestWatchSeesWhatChangesBeforeItLooks(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/first/a.yaml", "first")
	write(t, dir+"/second/a.yaml", "second")
	link(t, "first", dir+"/current")
	src := config.Sources{Files: []string{dir + "/current/a.yaml"}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	last := ""
	err := config.Watch(ctx, src, func() config.Sources {
		text, err := os.ReadFile(dir + "/current/a.yaml")
		if err != nil {
			t.Error(err)
		}
		switch last = string(text); last {
		case "first": // when the first folder is watched, and not the second
			time.AfterFunc(100*time.Millisecond, func() { link(t, "second", dir+"/current") })
		case "second":
			write(t, dir+"/second/a.yaml", "third")
		case "third":
			cancel()
		}
		return src
	})
	if err != nil || last != "third" {
		t.Errorf("Watch = %v after %q was read, want nil after third", err, last)
	}
}
