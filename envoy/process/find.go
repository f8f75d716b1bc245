package process

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ErrNotFound says that this machine has no Envoy where [Find] looks.
var ErrNotFound = errors.New("no Envoy found: run `make envoy`, put one on the PATH, or set ENVOY to its path")

// Find returns the path of an Envoy: what the environment variable ENVOY names,
// else one on the PATH, else the newest that `make envoy` has put into the
// folder .tools of the working directory or one above it.
func Find() (string, error) {
	if path := os.Getenv("ENVOY"); path != "" {
		if _, err := exec.LookPath(path); err != nil {
			return "", fmt.Errorf("ENVOY: %w", err)
		}
		return path, nil
	}
	if path, err := exec.LookPath("envoy"); err == nil {
		return path, nil
	}
	fetched := Fetched()
	if len(fetched) == 0 {
		return "", ErrNotFound
	}
	return fetched[0], nil
}

// Fetched returns the Envoys that `make envoy` has fetched, newest first.
func Fetched() []string {
	dir, err := os.Getwd()
	if err != nil {
		return nil
	}
	for {
		found, _ := filepath.Glob(filepath.Join(dir, ".tools", "envoy-*", "envoy"))
		if len(found) > 0 {
			slices.SortFunc(found, func(a, b string) int { return compareVersions(version(b), version(a)) })
			return found
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return nil
		}
		dir = parent
	}
}

// version reads the version out of a fetched Envoy's path.
func version(path string) string {
	return strings.TrimPrefix(filepath.Base(filepath.Dir(path)), "envoy-")
}

func compareVersions(a, b string) int {
	return slices.CompareFunc(strings.Split(a, "."), strings.Split(b, "."), func(x, y string) int {
		m, _ := strconv.Atoi(x)
		n, _ := strconv.Atoi(y)
		return cmp.Compare(m, n)
	})
}
