package config

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/yamlfile"
)

// environment reads variables, and collects what is wrong with them in the
// loader, each problem under the variable's name.
type environment struct{ *loader }

// lookupText returns a variable that is set, be it to nothing.
func (e environment) lookupText(name string) (string, bool) {
	if e.lookup == nil {
		return "", false
	}
	return e.lookup(name)
}

// text returns a variable's value, which may be empty.
func (e environment) text(name, otherwise string) string {
	if s, ok := e.lookupText(name); ok {
		return s
	}
	return otherwise
}

// set reports whether a variable says anything.
func (e environment) set(name string) bool { return e.text(name, "") != "" }

// wrong says what is wrong with a variable.
func (e environment) wrong(name, format string, args ...any) {
	e.problems = append(e.problems, yamlfile.Problem{File: name, Message: fmt.Sprintf(format, args...)})
}

func (e environment) flag(name string, otherwise bool) bool {
	return value(e, name, otherwise, "true or false", strconv.ParseBool)
}

func (e environment) duration(name string, otherwise time.Duration) time.Duration {
	return value(e, name, otherwise, "a duration such as 10s or 1h30m", func(s string) (time.Duration, error) {
		d, err := time.ParseDuration(s)
		if err == nil && d < 0 {
			err = errors.New("negative")
		}
		return d, err
	})
}

func (e environment) number(name string, lo, hi, otherwise int) int {
	return value(e, name, otherwise, fmt.Sprintf("a whole number from %d to %d", lo, hi), func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err == nil && (n < lo || n > hi) {
			err = strconv.ErrRange
		}
		return n, err
	})
}

// ratio reads a number from 0 to 1.
func (e environment) ratio(name string, otherwise float64) float64 {
	return value(e, name, otherwise, "a number from 0 to 1", func(s string) (float64, error) {
		f, err := strconv.ParseFloat(s, 64)
		if err == nil && !(f >= 0 && f <= 1) { // nor NaN
			err = strconv.ErrRange
		}
		return f, err
	})
}

// oneOf reads one of some words, in any letter case, and returns it as listed.
func (e environment) oneOf(name string, words ...string) string {
	return value(e, name, words[0], "one of "+strings.Join(words, ", "), func(s string) (string, error) {
		for _, w := range words {
			if strings.EqualFold(s, w) {
				return w, nil
			}
		}
		return "", strconv.ErrSyntax
	})
}

// pairs reads a list such as k1:v1,k2:v2; separators are what may stand between
// a key and its value. The text is not repeated in problems: it may be a secret.
func (e environment) pairs(name, separators string) map[string]string {
	pairs := map[string]string{}
	for item := range strings.SplitSeq(e.text(name, ""), ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		i := strings.IndexAny(item, separators)
		if i < 1 {
			e.wrong(name, "want a list of key%svalue, separated by commas", separators[:1])
			return nil
		}
		pairs[strings.TrimSpace(item[:i])] = strings.TrimSpace(item[i+1:])
	}
	return pairs
}

// address joins two variables into HOST:PORT.
func (e environment) address(host, port string, otherwise int) string {
	return net.JoinHostPort(e.text(host, "0.0.0.0"), strconv.Itoa(e.number(port, 0, 65535, otherwise)))
}

// value reads a variable; one that is empty is as one that is not set.
func value[T any](e environment, name string, otherwise T, want string, parse func(string) (T, error)) T {
	s := strings.TrimSpace(e.text(name, ""))
	if s == "" {
		return otherwise
	}
	v, err := parse(s)
	if err != nil {
		e.wrong(name, "%q: want %s", s, want)
		return otherwise
	}
	return v
}
