// Package manifests reads Kubernetes objects from files, folders and streams.
package manifests

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// Object is an object and where it stands, as secrets.yaml: document 3.
type Object struct {
	*unstructured.Unstructured
	Place string
}

// Read returns the objects of files, of all .yaml, .yml and .json files below
// folders, and of stdin for "-". Those of lists come one by one. The error names
// all that cannot be read.
func Read(names []string, stdin io.Reader) ([]Object, error) {
	var all []Object
	var errs []error
	for _, name := range names {
		found, err := readName(name, stdin)
		all, errs = append(all, found...), append(errs, err)
	}
	return all, errors.Join(errs...)
}

func readName(name string, stdin io.Reader) (all []Object, err error) {
	if name == "-" {
		return Stream("standard input", stdin)
	}
	files := 0
	var errs []error
	err = filepath.WalkDir(name, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path != name && !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)) {
			return err
		}
		files++
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		found, err := Stream(path, file)
		all, errs = append(all, found...), append(errs, err)
		return nil
	})
	if err == nil && files == 0 {
		err = fmt.Errorf("%s: no .yaml, .yml or .json file", name)
	}
	return all, errors.Join(append(errs, err)...)
}

// Stream returns the objects of YAML documents, of which JSON is one.
func Stream(name string, r io.Reader) ([]Object, error) {
	var all []Object
	var errs []error
	docs := yaml.NewYAMLReader(bufio.NewReader(r))
	for n := 1; ; n++ {
		place := fmt.Sprintf("%s: document %d", name, n)
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return all, errors.Join(errs...)
		}
		if err != nil { // of the stream: there is nothing to read on
			return all, errors.Join(append(errs, fmt.Errorf("%s: %w", place, err))...)
		}
		var u unstructured.Unstructured
		if err := yaml.Unmarshal(doc, &u.Object); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", place, err))
			continue
		}
		if len(u.Object) == 0 {
			continue
		}
		for _, o := range flatten(&u) {
			all = append(all, Object{o, place})
		}
	}
}

// flatten returns the objects of a list, or the object itself.
func flatten(u *unstructured.Unstructured) []*unstructured.Unstructured {
	if !u.IsList() {
		return []*unstructured.Unstructured{u}
	}
	var all []*unstructured.Unstructured
	_ = u.EachListItem(func(o runtime.Object) error { // there is no error but ours
		if item, ok := o.(*unstructured.Unstructured); ok {
			all = append(all, item)
		}
		return nil
	})
	return all
}
