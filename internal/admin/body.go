package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
)

// maxBody bounds what is read of a request.
const maxBody = 1 << 20

// read decodes a body strictly into v.
func read(w http.ResponseWriter, r *http.Request, v any) error {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return problemf(http.StatusRequestEntityTooLarge, "want a body of at most %d bytes", maxBody)
	case err != nil:
		return problemf(http.StatusBadRequest, "the body could not be read: %v", err)
	case !utf8.Valid(data):
		return problemf(http.StatusBadRequest, "the body is not UTF-8")
	case !json.Valid(data):
		return problemf(http.StatusBadRequest, "the body is not one JSON document")
	}
	if !bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		return problemf(http.StatusUnprocessableEntity, "want a JSON object")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return problemf(http.StatusUnprocessableEntity, "%s", strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

func answer(w http.ResponseWriter, status int, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("content-type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n')) // a caller that is gone needs no answer
	return nil
}

// fail answers for an error. What is not the caller's business goes to the log.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	var p *Problem
	var invalid consumers.Problems
	switch {
	case errors.As(err, &p):
	case errors.As(err, &invalid):
		p = problemf(http.StatusUnprocessableEntity, "%v", invalid)
	case errors.Is(err, consumers.ErrNotFound):
		p = problemf(http.StatusNotFound, "%v", err)
	case errors.Is(err, consumers.ErrExists), errors.Is(err, consumers.ErrConflict):
		p = problemf(http.StatusConflict, "%v", err)
	case errors.Is(err, consumers.ErrUnavailable):
		a.o.Log.Error("admin call failed", "method", r.Method, "path", r.URL.Path, "err", err)
		p = problemf(http.StatusServiceUnavailable, "%v: decisions go on with what is known; try again", consumers.ErrUnavailable)
	case errors.Is(err, consumers.ErrReadOnly):
		p = problemf(http.StatusNotImplemented, "%v: change the source itself, then POST /v1/refresh", err)
	default:
		a.o.Log.Error("admin call failed", "method", r.Method, "path", r.URL.Path, "err", err)
		p = problemf(http.StatusInternalServerError, "see Tollgate's log")
	}
	p.write(w)
}
