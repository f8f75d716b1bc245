package yamlfile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong in a file. Line and Column count from 1;
// both are 0 where the problem belongs to the file as a whole.
type Problem struct {
	File    string
	Line    int
	Column  int
	Message string
}

// Error renders the problem as file:line:column: message, the form that
// editors jump to.
func (p Problem) Error() string {
	if p.Line == 0 {
		return fmt.Sprintf("%s: %s", p.File, p.Message)
	}
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
}

// Problems is every problem of one or more files, in reading order. It is an
// error whose text is one line per problem.
type Problems []Problem

// Error joins the problems, one line each.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives access to the single problems through errors.As.
func (ps Problems) Unwrap() []error {
	errs := make([]error, len(ps))
	for i, p := range ps {
		errs[i] = p
	}
	return errs
}

// ErrOrNil returns ps as an error sorted by file and position, or nil if
// there is none. A problem in a value that aliases repeat is named once.
func (ps Problems) ErrOrNil() error {
	if len(ps) == 0 {
		return nil
	}
	ps = slices.Clone(ps)
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.Compact(ps)
}
