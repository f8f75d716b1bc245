package admin

import (
	"net/http"

	"github.com/tollgate-dev/tollgate/internal/config"
)

// maxTop bounds how many consumers one answer ranks.
const maxTop = 1000

func (a *API) showSettings(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, http.StatusOK, a.o.Settings())
}

func (a *API) putSettings(w http.ResponseWriter, r *http.Request) error {
	var s Settings
	if err := read(w, r, &s); err != nil {
		return err
	}
	if s.Mode != nil {
		if _, err := config.ParseMode(*s.Mode); err != nil {
			return problemf(http.StatusUnprocessableEntity, "mode: %v", err)
		}
	}
	if s.DefaultLimit != nil {
		if _, err := config.ParseDefault(*s.DefaultLimit); err != nil {
			return problemf(http.StatusUnprocessableEntity, "default_limit: %v", err)
		}
	}
	if s.LogLevel != nil {
		if _, err := config.ParseLevel(*s.LogLevel); err != nil {
			return problemf(http.StatusUnprocessableEntity, "log_level: %v", err)
		}
	}
	a.settings.Lock()
	defer a.settings.Unlock()
	before := a.o.Settings()
	if err := a.o.SetSettings(r.Context(), s); err != nil {
		return err
	}
	now := a.o.Settings()
	a.audit(r, setSettings, "settings", before, now)
	return answer(w, http.StatusOK, now)
}

func (a *API) refresh(w http.ResponseWriter, r *http.Request) error {
	if err := a.o.Refresh(r.Context()); err != nil {
		return problemf(http.StatusUnprocessableEntity, "the source cannot be used, what was in force before stays: %v", err)
	}
	a.audit(r, refreshSource, "consumers", nil, nil)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *API) top(w http.ResponseWriter, r *http.Request) error {
	n, err := count(r, "n", 20, maxTop)
	if err != nil {
		return err
	}
	by := "admitted"
	if q := r.URL.Query(); q.Has("by") {
		by = q.Get("by")
	}
	switch by {
	case "admitted":
		return answer(w, http.StatusOK, Top{Top: a.o.Top.Busiest(n)})
	case "refused":
		return answer(w, http.StatusOK, Top{Top: a.o.Top.MostRefused(n)})
	default:
		return problemf(http.StatusBadRequest, "by: %q: want admitted or refused", by)
	}
}

func (a *API) refusals(w http.ResponseWriter, r *http.Request) error {
	n, err := count(r, "n", 20, maxTop)
	if err != nil {
		return err
	}
	all := a.o.Refusals()
	return answer(w, http.StatusOK, Refusals{Refusals: all[:min(n, len(all))]})
}

func (a *API) config(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, http.StatusOK, a.o.Config())
}
