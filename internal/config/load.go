package config

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors"
	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/file"
	"github.com/tollgate-dev/tollgate/descriptors/yamlfile"
)

// Lookup finds environment variables, as os.LookupEnv does.
type Lookup = func(name string) (value string, ok bool)

// Loaded is everything that `tollgate serve` reads from disk, as it was at one
// moment. It is immutable.
type Loaded struct {
	Config    *Config
	Consumers *consumers.Set // of source file; else nil
	Rules     *descriptors.Rules
	Warnings  yamlfile.Problems // what works but should be changed
}

// MaxWait returns the longest time that a limit may hold a request. Consumers
// of the embedded store are not in it.
func (l *Loaded) MaxWait() time.Duration {
	longest := l.Rules.MaxWait()
	for _, u := range l.Config.Upstreams {
		longest = max(longest, u.Longest())
	}
	wait := func(ls consumers.Limits) {
		for _, limit := range ls {
			longest = max(longest, limit.MaxWait)
		}
	}
	for _, p := range l.Config.Consumers.Plans {
		wait(p.Limits)
	}
	if l.Consumers != nil {
		for _, p := range l.Consumers.Plans {
			wait(p.Limits)
		}
		for _, c := range l.Consumers.Consumers {
			wait(c.Limits)
		}
	}
	return longest
}

// Sources is what a configuration was read from, whether or not it was any good.
type Sources struct {
	Files    []string          // every file that was read or is missing, in order
	Patterns []string          // where rule files were looked for
	Sum      [sha256.Size]byte // of the files' names and contents
}

// Load reads the configuration at path and all that it names. An empty path
// means [Default], or in the environment of a deployment of envoyproxy/ratelimit
// what its variables say. The error is yamlfile.Problems: every problem of every file.
// The sources are told either way, so that a watcher knows what to wait for.
func Load(path string, lookup Lookup) (*Loaded, Sources, error) {
	l := loader{lookup: lookup, sum: sha256.New(), r: reader{c: Default()}}
	switch {
	case path != "":
		l.config(path)
	case InRateLimitEnvironment(lookup):
		environment{&l}.rateLimit()
	}
	loaded := &Loaded{Config: &l.r.c}
	loaded.Consumers = l.consumers()
	loaded.Rules = l.rules()
	l.certificates()
	if l.doc != nil {
		l.problems = append(l.problems, l.doc.Problems()...)
	}
	l.sum.Sum(l.src.Sum[:0])
	if err := l.problems.ErrOrNil(); err != nil {
		return nil, l.src, err
	}
	loaded.Warnings = l.warnings
	return loaded, l.src, nil
}

// loader reads files, remembers which, and collects what is wrong with them.
type loader struct {
	lookup   Lookup
	r        reader
	doc      *yamlfile.Document // tollgate.yaml
	src      Sources
	sum      hash.Hash
	problems yamlfile.Problems
	warnings yamlfile.Problems
}

// file reads a file. It returns false, and records why, where it cannot; at is
// the value that names the file, if one does.
func (l *loader) file(path string, at yamlfile.Node) ([]byte, bool) {
	data, err := l.raw(path)
	var pathErr *fs.PathError
	switch {
	case err == nil:
		return data, true
	case errors.As(err, &pathErr):
		err = pathErr.Err
	}
	if at.Null() {
		l.errorf(at, path, "%v", err)
	} else {
		at.Errorf("%s: %v", path, err)
	}
	return nil, false
}

func (l *loader) raw(path string) ([]byte, error) {
	l.src.Files = append(l.src.Files, path)
	data, err := os.ReadFile(path)
	for _, part := range [][]byte{[]byte(path), data} {
		l.sum.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		l.sum.Write(part)
	}
	return data, err
}

func (l *loader) config(path string) {
	l.r.dir = filepath.Dir(path)
	data, ok := l.file(path, yamlfile.Node{})
	if !ok {
		return
	}
	l.doc = yamlfile.Parse(path, data, yamlfile.Options{Lookup: l.lookup})
	if !l.doc.Empty() {
		l.r.read(l.doc.Root())
	}
}

// add takes over what another package found wrong.
func (l *loader) add(file string, err error) {
	var ps yamlfile.Problems
	switch {
	case errors.As(err, &ps):
		l.problems = append(l.problems, ps...)
	case err != nil:
		l.problems = append(l.problems, yamlfile.Problem{File: file, Message: err.Error()})
	}
}

func (l *loader) consumers() *consumers.Set {
	c := l.r.c.Consumers
	if c.Source != SourceFile || c.File == "" {
		return nil
	}
	if !l.r.plans.Null() {
		l.r.plans.Errorf("plans: with source file they stand in the consumers file, %s", c.File)
	}
	data, ok := l.file(c.File, l.r.consumersFile)
	if !ok {
		return nil
	}
	set, warnings, err := file.Parse(c.File, data, yamlfile.Options{Lookup: l.lookup})
	l.add(c.File, err)
	l.warnings = append(l.warnings, warnings...)
	known := func(c consumers.Consumer) bool { return c.ID == l.r.c.Policy.Anonymous }
	if err == nil && l.r.c.Policy.Anonymous != "" && !slices.ContainsFunc(set.Consumers, known) {
		l.r.anonymous.Errorf("anonymous: no consumer %q in %s", l.r.c.Policy.Anonymous, c.File)
	}
	return &set
}

func (l *loader) rules() *descriptors.Rules {
	var files []descriptors.File
	for i, pattern := range l.r.c.Rules.Files {
		at := l.r.rulesFiles.List()[i]
		for _, path := range l.glob(pattern, at) {
			if slices.ContainsFunc(files, func(f descriptors.File) bool { return f.Name == path }) {
				continue // matched by two patterns
			}
			if data, ok := l.file(path, at); ok {
				files = append(files, descriptors.File{Name: path, Data: data})
			}
		}
	}
	if dir := l.r.c.Rules.Dir; dir != "" {
		files = l.dir(dir)
	}
	rules, err := descriptors.Parse(files, descriptors.Options{MergeDomains: l.r.c.Rules.MergeDomains})
	l.add("rules", err)
	return rules
}

// dir reads every YAML file below a folder, in the order of their paths.
func (l *loader) dir(dir string) []descriptors.File {
	var files []descriptors.File
	paths, err := l.find(dir)
	for _, path := range paths {
		if data, ok := l.file(path, yamlfile.Node{}); ok {
			files = append(files, descriptors.File{Name: path, Data: data})
		}
	}
	problem := yamlfile.Problem{File: dir, Message: "holds no rule file: want one whose name ends in .yaml or .yml"}
	if err != nil {
		problem.Message = err.Error()
	}
	switch {
	case err == nil && len(paths) > 0:
	case l.r.c.Rules.Optional:
		l.warnings = append(l.warnings, problem)
	default:
		l.problems = append(l.problems, problem)
	}
	return files
}

// find returns the YAML files below a folder. Hidden ones are left out: a
// mounted ConfigMap and editors leave such. Of others a warning tells.
func (l *loader) find(dir string) ([]string, error) {
	l.src.Patterns = append(l.src.Patterns, filepath.Join(dir, "*.yaml"))
	entries, err := os.ReadDir(dir)
	var paths []string
	for _, e := range entries {
		path, extension := filepath.Join(dir, e.Name()), filepath.Ext(e.Name())
		switch {
		case strings.HasPrefix(e.Name(), "."):
		case e.IsDir():
			below, err := l.find(path)
			if err != nil {
				return nil, err
			}
			paths = append(paths, below...)
		case extension == ".yaml" || extension == ".yml":
			paths = append(paths, path)
		default:
			l.warnings = append(l.warnings, yamlfile.Problem{File: path, Message: "not read as rules: its name does not end in .yaml or .yml"})
		}
	}
	return paths, err
}

// glob returns the files that a pattern stands for. Hidden ones count only
// where the pattern names them: a mounted ConfigMap and editors leave such.
func (l *loader) glob(pattern string, at yamlfile.Node) []string {
	if !strings.ContainsAny(pattern, `*?[\`) {
		return []string{pattern}
	}
	l.src.Patterns = append(l.src.Patterns, pattern)
	matches, err := filepath.Glob(pattern)
	if err != nil {
		at.Errorf("%q: %v: want a path, in which * and ? may stand for any characters", pattern, err)
		return nil
	}
	hidden := strings.HasPrefix(filepath.Base(pattern), ".")
	matches = slices.DeleteFunc(matches, func(path string) bool {
		info, err := os.Stat(path)
		return err == nil && info.IsDir() || !hidden && strings.HasPrefix(filepath.Base(path), ".")
	})
	if len(matches) == 0 {
		at.Errorf("no file matches %s", pattern)
	}
	return matches
}

// certificates checks that the TLS files can be used; the listener reads them
// by itself.
func (l *loader) certificates() {
	t := l.r.c.Listen.TLS
	if t == nil {
		return
	}
	cert, certOK := l.file(t.Cert, l.r.tls)
	key, keyOK := l.file(t.Key, l.r.tls)
	if certOK && keyOK {
		if _, err := tls.X509KeyPair(cert, key); err != nil {
			l.errorf(l.r.tls, t.Cert, "cert %s and key %s: %v", t.Cert, t.Key, err)
		}
	}
	if t.ClientCA == "" {
		return
	}
	if ca, ok := l.file(t.ClientCA, l.r.tls); ok && !x509.NewCertPool().AppendCertsFromPEM(ca) {
		l.errorf(l.r.tls, t.ClientCA, "client_ca %s: holds no certificate in PEM", t.ClientCA)
	}
}

// errorf reports what is wrong at a value of tollgate.yaml, or with a file that
// none names.
func (l *loader) errorf(at yamlfile.Node, file, format string, args ...any) {
	if at.Null() {
		l.problems = append(l.problems, yamlfile.Problem{File: file, Message: fmt.Sprintf(format, args...)})
		return
	}
	at.Errorf(format, args...)
}
