package push

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/eso"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/webhook"
	"github.com/tollgate-dev/tollgate/cmd/tollgate-eso/windows"
)

// indexField is under which an index of external secrets by what they read is
// kept in the cache.
const indexField = "tollgate.reads"

// Index finds external secrets by the records that they read. It looks up what
// the cache keeps; no event makes it read all of them.
type Index struct {
	reader client.Reader
}

// NewIndex makes the cache keep the index. It is called before the cache starts.
func NewIndex(ctx context.Context, indexer client.FieldIndexer, reader client.Reader) (*Index, error) {
	if err := indexer.IndexField(ctx, &eso.ExternalSecret{}, indexField, IndexValues); err != nil {
		return nil, fmt.Errorf("index of external secrets: %w", err)
	}
	return &Index{reader: reader}, nil
}

// IndexValues returns what an external secret is found by: the keys that it
// reads, the stores that it reads them of, and the stores of which it reads what
// no uid can name: patterns, and keys that may be titles.
func IndexValues(o client.Object) []string {
	e, ok := o.(*eso.ExternalSecret)
	if !ok {
		return nil
	}
	var values []string
	add := func(v string) {
		if !slices.Contains(values, v) {
			values = append(values, v)
		}
	}
	if owner := e.Owner(); owner != "" {
		add("owner\x00" + owner)
	}
	if windows.Set(e) {
		add("paused")
	}
	for _, r := range e.Reads() {
		add("store\x00" + r.Store.String())
		switch {
		case r.Key == "":
			add("find\x00" + r.Store.String())
		default:
			add("key\x00" + r.Key)
			if !eso.IsUID(r.Key) {
				add("title\x00" + r.Store.String())
			}
		}
	}
	return values
}

// Find returns the external secrets that a job is about, among those that read
// one of the stores. The caller may change them.
func (x *Index) Find(ctx context.Context, j webhook.Job, stores []eso.AnyStore) ([]*eso.ExternalSecret, error) {
	f := found{seen: map[client.ObjectKey]bool{}}
	if j.Kind == webhook.ByUID || j.Kind == webhook.ByTitle {
		if err := x.list(ctx, &f, "key\x00"+j.Name, func(e *eso.ExternalSecret) bool { return reads(e, j.Name, stores) }); err != nil {
			return nil, err
		}
	}
	any := func(*eso.ExternalSecret) bool { return true }
	for _, s := range stores {
		lists := []string{"find"}
		switch {
		case j.Kind == webhook.Every || j.Kind == webhook.Net:
			lists = []string{"store"}
		case j.Kind == webhook.ByUID && s.Provider.GetByTitleFallback:
			lists = append(lists, "title") // a uid says nothing about which title it has
		}
		for _, l := range lists {
			if err := x.list(ctx, &f, l+"\x00"+s.String(), any); err != nil {
				return nil, err
			}
		}
	}
	return f.all, nil
}

// ownedBy returns the external secrets of a ClusterExternalSecret.
func (x *Index) ownedBy(ctx context.Context, owner string) ([]*eso.ExternalSecret, error) {
	f := found{seen: map[client.ObjectKey]bool{}}
	err := x.list(ctx, &f, "owner\x00"+owner, func(*eso.ExternalSecret) bool { return true })
	return f.all, err
}

// paused returns the external secrets with a window that was set by a pause, of
// those that read one of the stores.
func (x *Index) paused(ctx context.Context, stores []eso.AnyStore) ([]*eso.ExternalSecret, error) {
	f := found{seen: map[client.ObjectKey]bool{}}
	err := x.list(ctx, &f, "paused", func(e *eso.ExternalSecret) bool {
		return slices.ContainsFunc(e.Stores(), func(read eso.Store) bool {
			return slices.ContainsFunc(stores, func(s eso.AnyStore) bool { return s.Store == read })
		})
	})
	return f.all, err
}

// found are external secrets, each once.
type found struct {
	seen map[client.ObjectKey]bool
	all  []*eso.ExternalSecret
}

func (x *Index) list(ctx context.Context, f *found, value string, fits func(*eso.ExternalSecret) bool) error {
	var l eso.ExternalSecretList
	if err := x.reader.List(ctx, &l, client.MatchingFields{indexField: value}); err != nil {
		return fmt.Errorf("external secrets by %s: %w", strings.ReplaceAll(value, "\x00", " "), err)
	}
	for i := range l.Items {
		e := &l.Items[i]
		if key := client.ObjectKeyFromObject(e); !f.seen[key] && fits(e) {
			f.seen[key] = true
			f.all = append(f.all, e)
		}
	}
	return nil
}

// reads reports whether a key is read of one of the stores.
func reads(e *eso.ExternalSecret, key string, stores []eso.AnyStore) bool {
	return slices.ContainsFunc(e.Reads(), func(r eso.Read) bool {
		return r.Key == key && slices.ContainsFunc(stores, func(s eso.AnyStore) bool { return s.Store == r.Store })
	})
}
