package testcluster

import (
	"context"
	"fmt"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// define puts External Secrets' definitions into the cluster, and waits until
// they are in force.
func (c *Cluster) define() error {
	files, err := definitions()
	if err != nil {
		return err
	}
	cl, err := client.New(c.Config, client.Options{})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var names []string
	for _, file := range files {
		crd, err := readObject(file)
		if err != nil {
			return err
		}
		if known, err := HasSyncWindows(); err != nil {
			return err
		} else if !known {
			addSyncWindows(crd)
		}
		if err := cl.Create(ctx, crd); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		names = append(names, crd.GetName())
	}
	for _, name := range names {
		if err := established(ctx, cl, name); err != nil {
			return err
		}
	}
	return nil
}

func readObject(file string) (*unstructured.Unstructured, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	o := &unstructured.Unstructured{}
	return o, yaml.Unmarshal(data, &o.Object)
}

// addSyncWindows adds what External Secrets has from 2.7 on, whose module cannot
// be had whole: ExternalSecret's spec.syncWindows.
func addSyncWindows(crd *unstructured.Unstructured) {
	if crd.GetName() != "externalsecrets.external-secrets.io" {
		return
	}
	text := map[string]any{"type": "string"}
	versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
	for i := range versions {
		v := versions[i].(map[string]any)
		_ = unstructured.SetNestedMap(v, map[string]any{
			"type": "object", "required": []any{"kind", "windows"},
			"properties": map[string]any{
				"kind": map[string]any{"type": "string", "enum": []any{"allow", "deny"}},
				"windows": map[string]any{"type": "array", "minItems": int64(1), "items": map[string]any{
					"type": "object", "required": []any{"schedule", "duration"},
					"properties": map[string]any{"schedule": text, "duration": text},
				}},
			},
		}, "schema", "openAPIV3Schema", "properties", "spec", "properties", "syncWindows")
	}
	_ = unstructured.SetNestedSlice(crd.Object, versions, "spec", "versions")
}

func established(ctx context.Context, cl client.Client, name string) error {
	for {
		crd := &unstructured.Unstructured{}
		crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
		if err := cl.Get(ctx, client.ObjectKey{Name: name}, crd); err != nil {
			return err
		}
		conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
		for _, c := range conditions {
			if c, ok := c.(map[string]any); ok && c["type"] == "Established" && c["status"] == "True" {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not in force: %w", name, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
