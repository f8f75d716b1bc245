package extproc

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"

	"github.com/tollgate-dev/tollgate/extauthz/upstreams"
)

// readBody returns the beginning of a body as its author wrote it. A body that
// is not what its encoding says is returned as it stands.
func readBody(body []byte, encoding string) []byte {
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "gzip", "x-gzip": // RFC 9110, section 8.4.1.3
	default:
		return body[:min(len(body), upstreams.MaxBody)]
	}
	r, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return body[:min(len(body), upstreams.MaxBody)]
	}
	// Envoy may have sent a part only: what comes before the error counts.
	plain, _ := io.ReadAll(io.LimitReader(r, upstreams.MaxBody))
	return plain
}
