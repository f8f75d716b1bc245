package admin

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
)

// Pages of consumers hold as many as asked for, within bounds.
const (
	pageSize    = 100
	maxPageSize = 1000
)

// Labels end up in Envoy's metadata with every request.
const (
	maxLabels     = 64
	maxLabelKey   = 128
	maxLabelValue = 1024
)

func shown(c consumers.Consumer) Consumer {
	v := Consumer{ID: c.ID, Plan: c.Plan, Limits: c.Limits, Labels: c.Labels, Disabled: c.Disabled}
	if v.Labels == nil {
		v.Labels = map[string]string{}
	}
	return v
}

func (a *API) listConsumers(w http.ResponseWriter, r *http.Request) error {
	n, err := count(r, "page_size", pageSize, maxPageSize)
	if err != nil {
		return err
	}
	after, err := base64.RawURLEncoding.DecodeString(r.URL.Query().Get("page_token"))
	if err != nil {
		return problemf(http.StatusBadRequest, "page_token: want the next_page_token of an earlier answer")
	}
	list, next, err := a.search(r.Context(), r.URL.Query().Get("q"), string(after), n)
	if err != nil {
		return err
	}
	page := ConsumerPage{Consumers: make([]Consumer, len(list)), NextPageToken: base64.RawURLEncoding.EncodeToString([]byte(next))}
	for i, c := range list {
		page.Consumers[i] = shown(c)
	}
	return answer(w, http.StatusOK, page)
}

// search is Store.List of those whose id has q in it, in whatever letter case.
func (a *API) search(ctx context.Context, q, after string, n int) (found []consumers.Consumer, next string, err error) {
	if q == "" {
		return a.o.Store.List(ctx, after, n)
	}
	found = a.o.Registry.Search(strings.ToLower(q), after, n+1)
	if len(found) > n {
		found = found[:n]
		next = found[n-1].ID
	}
	return found, next, nil
}

// count reads a number from 1 to limit from the query; larger ones are cut.
func count(r *http.Request, key string, absent, limit int) (int, error) {
	q := r.URL.Query()
	if !q.Has(key) {
		return absent, nil
	}
	s := q.Get(key)
	n, err := strconv.Atoi(s)
	if errors.Is(err, strconv.ErrRange) && !strings.HasPrefix(s, "-") {
		n, err = limit, nil
	}
	if err != nil || n < 1 {
		return 0, problemf(http.StatusBadRequest, "%s: %q: want a number from 1 to %d", key, s, limit)
	}
	return min(n, limit), nil
}

func etag(c consumers.Consumer) string {
	return `"` + strconv.FormatUint(c.Version, 36) + `"`
}

// match reads the condition of a change: If-Match with an ETag or *, or
// If-None-Match: *.
func (a *API) match(r *http.Request, id string) (consumers.Match, error) {
	if none := r.Header.Values("if-none-match"); len(none) > 0 {
		if none[0] != "*" {
			return 0, problemf(http.StatusBadRequest, "if-none-match: want *, to add only what is not there yet")
		}
		return consumers.IfAbsent, nil
	}
	if len(r.Header.Values("if-match")) == 0 {
		return consumers.Always, nil
	}
	tag := strings.TrimSpace(r.Header.Get("if-match"))
	switch tag {
	case "":
		return 0, problemf(http.StatusBadRequest, "if-match: want an ETag, or * for whichever version there is")
	case "*":
		c, err := a.o.Store.Consumer(r.Context(), id)
		return consumers.Match(c.Version), err
	}
	version, err := strconv.ParseUint(strings.Trim(tag, `"`), 36, 64)
	if m := consumers.Match(version); err != nil || m == consumers.Always || m == consumers.IfAbsent {
		return 0, problemf(http.StatusConflict, "if-match: %s is not the consumer's version: read it again", tag)
	}
	return consumers.Match(version), nil
}

func (a *API) showConsumer(w http.ResponseWriter, r *http.Request) error {
	c, err := a.o.Store.Consumer(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	w.Header().Set("etag", etag(c))
	if r.Header.Get("if-none-match") == etag(c) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return answer(w, http.StatusOK, shown(c))
}

func (a *API) putConsumer(w http.ResponseWriter, r *http.Request) error {
	var body Consumer
	if err := read(w, r, &body); err != nil {
		return err
	}
	id := r.PathValue("id")
	if body.ID != "" && body.ID != id {
		return problemf(http.StatusUnprocessableEntity, "id: %q is not the %q of the path", body.ID, id)
	}
	if err := checkLabels(body.Labels); err != nil {
		return err
	}
	m, err := a.match(r, id)
	if err != nil {
		return err
	}
	c := consumers.Consumer{ID: id, Plan: body.Plan, Limits: body.Limits, Labels: body.Labels, Disabled: body.Disabled}
	before, err := a.replace(r.Context(), id, m, func(m consumers.Match) (err error) {
		c, err = a.o.Store.Put(r.Context(), c, m)
		return err
	})
	if err != nil {
		return err
	}
	a.audit(r, setConsumer, consumerName(id), before, shown(c))
	w.Header().Set("etag", etag(c))
	return answer(w, http.StatusOK, shown(c))
}

func checkLabels(labels map[string]string) error {
	if len(labels) > maxLabels {
		return problemf(http.StatusUnprocessableEntity, "labels: want at most %d", maxLabels)
	}
	for k, v := range labels {
		if k == "" || len(k) > maxLabelKey || len(v) > maxLabelValue {
			return problemf(http.StatusUnprocessableEntity, "labels: want keys of 1 to %d bytes and values of at most %d", maxLabelKey, maxLabelValue)
		}
	}
	return nil
}

func (a *API) removeConsumer(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	m, err := a.match(r, id)
	if err != nil {
		return err
	}
	before, err := a.replace(r.Context(), id, m, func(m consumers.Match) error {
		return a.o.Store.Delete(r.Context(), id, m)
	})
	if err != nil {
		return err
	}
	a.audit(r, removeConsumer, consumerName(id), before, nil)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *API) showUsage(w http.ResponseWriter, r *http.Request) error {
	usage, ok := a.usage(r.PathValue("id"))
	if !ok {
		return noConsumer(r)
	}
	return answer(w, http.StatusOK, usage)
}

func (a *API) usage(id string) (Usage, bool) {
	all, ok := a.o.Registry.Usage(a.o.Clock.Now(), id)
	usage := Usage{Usage: []LimitUsage{}}
	for _, u := range all {
		usage.Usage = append(usage.Usage, LimitUsage{
			Token: u.Token, Limit: u.Spec.Limit().Name, Remaining: u.Remaining, Reset: u.Reset.Seconds(),
			Admitted: u.Admitted, Refused: u.Refused,
		})
	}
	return usage, ok
}

func (a *API) resetUsage(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	before, _ := a.usage(id)
	if !a.o.Registry.ResetUsage(a.o.Clock.Now(), id) {
		return noConsumer(r)
	}
	a.audit(r, resetUsage, consumerName(id), before, nil)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func noConsumer(r *http.Request) error {
	return problemf(http.StatusNotFound, "consumer %q: not found", r.PathValue("id"))
}
