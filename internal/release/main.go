// Release builds what is published: for each platform the program, whose bytes
// are the same wherever it is built by the same Go, and a bill of what is in it;
// then the checksums of all, and the notes that the changelog has.
//
//	go run ./internal/release -version v1.2.3 -out dist
package main

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// platforms are GOOS/GOARCH.
var platforms = []string{"linux/amd64", "linux/arm64", "darwin/amd64", "darwin/arm64"}

// release says what to build.
type release struct {
	Source    string   // the repository's root
	Out       string   // an empty or new folder
	Version   string   // as v1.2.3
	Revision  string   // the commit
	Platforms []string // GOOS/GOARCH
}

func main() {
	r := release{Platforms: platforms}
	flag.StringVar(&r.Source, "source", ".", "the repository's root")
	flag.StringVar(&r.Out, "out", "dist", "where to put everything")
	flag.StringVar(&r.Version, "version", "devel", "what the programs call themselves")
	flag.StringVar(&r.Revision, "revision", "unknown", "the commit that they are built from")
	program := flag.String("bill", "", "build nothing: print the bill of this program")
	flag.Parse()
	run := r.run
	if *program != "" {
		run = func() error { return r.bill(*program) }
	}
	if err := run(); err != nil {
		log.Fatal("release: ", err)
	}
}

// bill prints the bill of a program that was built before.
func (r release) bill(program string) error {
	bill, err := sbom(program, r.Version)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(bill)
	return err
}

func (r release) run() error {
	changelog, err := os.ReadFile(filepath.Join(r.Source, "CHANGELOG.md"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(r.Out, 0o755); err != nil {
		return err
	}
	var names []string
	for _, platform := range r.Platforms {
		name, err := r.build(platform)
		if err != nil {
			return err
		}
		names = append(names, name, name+sbomSuffix)
	}
	if err := os.WriteFile(filepath.Join(r.Out, "NOTES.md"), notes(changelog, r.Version), 0o644); err != nil {
		return err
	}
	return r.checksums(append(names, "NOTES.md"))
}

// build builds for a platform and returns the program's file name.
func (r release) build(platform string) (string, error) {
	system, machine, _ := strings.Cut(platform, "/")
	name := fmt.Sprintf("tollgate_%s_%s_%s", r.Version, system, machine)
	path, err := filepath.Abs(filepath.Join(r.Out, name))
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-pgo=cmd/tollgate/tollgate.pgo",
		"-ldflags", fmt.Sprintf("-s -w -buildid= -X main.version=%s -X main.revision=%s", r.Version, r.Revision), "-o", path, "./cmd/tollgate")
	cmd.Dir = r.Source
	// What a person has set for other builds must not show in this one.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system, "GOARCH="+machine, "GOFLAGS=", "GOWORK=off", "GOAMD64=v1", "GOARM64=v8.0", "GOEXPERIMENT=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build for %s: %w\n%s", platform, err, out)
	}
	bill, err := sbom(path, r.Version)
	if err != nil {
		return "", err
	}
	return name, os.WriteFile(path+sbomSuffix, bill, 0o644)
}

// checksums writes SHA256SUMS, for sha256sum --check.
func (r release) checksums(names []string) error {
	slices.Sort(names)
	var b bytes.Buffer
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(r.Out, name))
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(data), name)
	}
	return os.WriteFile(filepath.Join(r.Out, "SHA256SUMS"), b.Bytes(), 0o644)
}

// notes returns the changelog's part about a version, or what is not released
// yet where there is none.
func notes(changelog []byte, version string) []byte {
	parts := strings.Split("\n"+string(changelog), "\n## ")
	for _, title := range []string{strings.TrimPrefix(version, "v"), "Unreleased"} {
		for _, part := range parts[1:] {
			if first, _, _ := strings.Cut(part, "\n"); first == title || strings.HasPrefix(first, title+" ") {
				return []byte("# Tollgate " + version + strings.TrimRight(part[len(first):], "\n") + "\n")
			}
		}
	}
	return []byte("# Tollgate " + version + "\n")
}
