package telemetry

import (
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// The buckets of decision times. Whoever scrapes native histograms gets
// boundaries that are a factor of 2^(1/8) apart, others the classic ones.
const (
	schema      = 3 // buckets in a doubling, as a power of two
	perDoubling = 1 << schema
	lowest      = -24 * perDoubling // the first boundary is 2^-24 s, 60 ns; what is shorter counts as zero
	highest     = 7 * perDoubling   // the last is 2^7 s; what is longer counts as the bucket behind it
	boundaries  = highest - lowest + 1
)

var classic = [...]float64{1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 1e-3, 1e-2, 0.1, 1}

// cells divide time at the boundaries of both kinds of buckets, so that an
// observation is one addition, and all else is done when somebody asks.
type cells struct {
	upTo  []int64 // the longest duration of each cell but the last, in nanoseconds
	first [65]int // by the number of its bits, the cell that a duration cannot lie before
}

func newCells() *cells {
	c := &cells{upTo: make([]int64, 0, boundaries+len(classic))}
	for i := lowest; i <= highest; i++ {
		c.upTo = append(c.upTo, nanoseconds(boundary(i)))
	}
	for _, b := range classic {
		c.upTo = append(c.upTo, nanoseconds(b))
	}
	slices.Sort(c.upTo)
	c.upTo = slices.Compact(c.upTo)
	for n := 1; n < len(c.first); n++ {
		c.first[n], _ = slices.BinarySearch(c.upTo, 1<<(n-1))
	}
	return c
}

// boundary is the upper bound of a native bucket in seconds.
func boundary(i int) float64 { return math.Exp2(float64(i) / perDoubling) }

func nanoseconds(seconds float64) int64 { return int64(math.Floor(seconds*1e9 + 1e-6)) } // 2.5e-6 is no binary fraction

// of returns the cell of a duration: at most perDoubling steps and those of the
// classic bounds between.
func (c *cells) of(d time.Duration) int {
	d = max(d, 0)
	i := c.first[bits.Len64(uint64(d))]
	for i < len(c.upTo) && int64(d) > c.upTo[i] {
		i++
	}
	return i
}

// histogram makes a metric of what was counted in each cell.
func (c *cells) histogram(desc *prometheus.Desc, counts []uint64, sum time.Duration, since time.Time, labels ...string) prometheus.Metric {
	h := both{cumulative: make([]uint64, len(classic))}
	native, count, zero, k := map[int]int64{}, uint64(0), uint64(0), lowest
	for i, n := range counts {
		count += n
		if i < len(c.upTo) {
			for j := range classic {
				if c.upTo[i] <= nanoseconds(classic[j]) {
					h.cumulative[j] += n
				}
			}
			for k <= highest && nanoseconds(boundary(k)) < c.upTo[i] {
				k++
			}
		} else {
			k = highest + 1
		}
		switch {
		case n == 0:
		case k == lowest:
			zero += n
		default:
			native[k] += int64(n)
		}
	}
	h.Metric = prometheus.MustNewConstNativeHistogram(desc, count, sum.Seconds(), native, nil, zero, schema, boundary(lowest), since, labels...)
	return h
}

// both is a native histogram that has classic buckets too, which the library
// makes in histograms of its own only.
type both struct {
	prometheus.Metric
	cumulative []uint64
}

// Write implements prometheus.Metric.
func (h both) Write(to *dto.Metric) error {
	if err := h.Metric.Write(to); err != nil {
		return err
	}
	for i, n := range h.cumulative {
		to.Histogram.Bucket = append(to.Histogram.Bucket, &dto.Bucket{CumulativeCount: &n, UpperBound: &classic[i]})
	}
	return nil
}
