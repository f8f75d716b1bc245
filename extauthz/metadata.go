package extauthz

import (
	"context"
	"strings"

	"google.golang.org/grpc/metadata"
)

// Metadata tells the fields of a call's own metadata by their names in lower
// case; "" for one that is not there.
type Metadata interface {
	Metadata(name string) string
}

// MetadataKey is the key under which a transport other than grpc-go puts the
// call's Metadata into the context. It costs nothing until it is asked.
type MetadataKey struct{}

// callField returns a field of the call's own metadata, several values joined.
func callField(ctx context.Context, name string) string {
	if m, ok := ctx.Value(MetadataKey{}).(Metadata); ok {
		return m.Metadata(name)
	}
	return strings.Join(metadata.ValueFromIncomingContext(ctx, name), ",")
}
