package config

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// A change is taken up when the files have been quiet for settle, so that a
// file that is written in pieces is not read half, but at the latest after
// settleAtMost.
const (
	settle       = 50 * time.Millisecond
	settleAtMost = 500 * time.Millisecond
)

// Watch calls changed whenever something happens to the files of src or where
// they are looked for, until ctx ends. changed returns what to watch from then
// on. It is called more often than files really change: compare Sources.Sum.
//
// Folders are watched beside files, and the folders of symbolic links along each
// path, so that an editor's rename and the swap of a link, by which Kubernetes
// updates a mounted ConfigMap, are seen like a write.
func Watch(ctx context.Context, src Sources, changed func() Sources) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer w.Close()
	follow(w, src)
	// What changed between reading and watching made no event.
	settled, latest := time.NewTimer(settle), time.Now().Add(settleAtMost)
	defer settled.Stop()
	pending := true
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.Errors: // events were lost
		case e := <-w.Events:
			if e.Op == fsnotify.Chmod && !pending {
				continue
			}
		case <-settled.C:
			if pending = follow(w, changed()); pending { // as at the start
				settled.Reset(settle)
				latest = time.Now().Add(settleAtMost)
			}
			continue
		}
		if !pending {
			pending, latest = true, time.Now().Add(settleAtMost)
		}
		settled.Reset(min(settle, max(0, time.Until(latest))))
	}
}

// follow makes the watcher watch what src needs and nothing else. A path that
// is not there is covered by its folder's watch. It reports whether something is
// watched that was not before.
func follow(w *fsnotify.Watcher, src Sources) (more bool) {
	want := map[string]bool{}
	for _, f := range src.Files {
		for _, path := range meaning(f) {
			want[path] = true
		}
	}
	for _, p := range src.Patterns {
		matches, _ := filepath.Glob(filepath.Dir(p)) // a bad pattern was reported when it was read
		for _, dir := range append(matches, fixed(p)) {
			for _, path := range meaning(dir) {
				want[path] = true
			}
		}
	}
	watched := map[string]bool{}
	for _, path := range w.WatchList() {
		if watched[path] = true; !want[path] {
			_ = w.Remove(path) // gone already
		}
	}
	for path := range want {
		if w.Add(path) == nil && !watched[path] {
			more = true
		}
	}
	return more
}

// fixed is the part of a pattern before its first wildcard, up to a folder.
func fixed(pattern string) string {
	dir := filepath.Dir(pattern)
	for strings.ContainsAny(dir, `*?[\`) {
		dir = filepath.Dir(dir)
	}
	return dir
}

// maxLinks bounds how many symbolic links are followed in a path.
const maxLinks = 40

// meaning returns every path whose change can change what a path leads to: the
// file, its folder, and the folder of each symbolic link on the way.
func meaning(path string) []string {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil
	}
	paths := []string{path, filepath.Dir(path)}
	for range maxLinks {
		link, target := firstLink(path)
		if link == "" {
			break
		}
		paths = append(paths, filepath.Dir(link))
		path = filepath.Join(target, strings.TrimPrefix(path, link))
		paths = append(paths, path, filepath.Dir(path))
	}
	return paths
}

// firstLink returns the first symbolic link in an absolute path and where it
// leads to, or "".
func firstLink(path string) (link, target string) {
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != filepath.Separator {
			continue
		}
		to, err := os.Readlink(path[:i])
		if err != nil {
			continue
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path[:i]), to)
		}
		return path[:i], to
	}
	return "", ""
}
