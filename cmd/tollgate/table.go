package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/tollgate-dev/tollgate/internal/top"
)

// The space between columns, and the least that a column is cut to.
const (
	columnGap   = 2
	columnLeast = 8
)

// writeTable writes rows in columns as wide as their widest cell. Where that is
// wider than a terminal, the widest columns are cut; a width of 0 cuts nothing.
func writeTable(w io.Writer, rows [][]string, width int) error {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], top.Width(top.Clean(cell)))
		}
	}
	if width > 0 {
		narrow(widths, width)
	}
	var b strings.Builder
	for _, row := range rows {
		for i, cell := range row {
			cell = top.Fit(cell, widths[i])
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-top.Width(cell)+columnGap))
			}
		}
		b.WriteByte('\n')
	}
	_, err := fmt.Fprint(w, b.String())
	return err
}

// narrow takes from the widest column until all fit, or none can give more.
func narrow(widths []int, width int) {
	total := (len(widths) - 1) * columnGap
	for _, w := range widths {
		total += w
	}
	for ; total > width; total-- {
		widest := 0
		for i := range widths {
			if widths[i] > widths[widest] {
				widest = i
			}
		}
		if widths[widest] <= columnLeast {
			return
		}
		widths[widest]--
	}
}
