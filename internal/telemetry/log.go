package telemetry

import (
	"io"
	"log/slog"
)

// NewLogger returns a logger that writes lines of JSON, or of text where format
// is "text". level may be changed while it is in use.
func NewLogger(w io.Writer, format string, level *slog.LevelVar) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if format == "text" {
		return slog.New(slog.NewTextHandler(w, o))
	}
	return slog.New(slog.NewJSONHandler(w, o))
}
