package pressure

import (
	"time"

	"github.com/tollgate-dev/tollgate/limits"
)

// meterSlots is into how many parts a meter divides its period.
const meterSlots = 20

// Meter counts what happened in the last period, to a twentieth of it.
type Meter struct {
	period time.Duration
	counts [meterSlots]int64
	last   int64 // number of the slot that was counted in last
}

// NewMeter returns a meter for a period.
func NewMeter(period time.Duration) Meter { return Meter{period: max(period, meterSlots)} }

// Period returns what the meter was made for.
func (m *Meter) Period() time.Duration { return m.period }

func (m *Meter) advance(now limits.Time) *int64 {
	slot := int64(now) / int64(m.period/meterSlots)
	switch passed := slot - m.last; {
	case passed < 0 && passed > -meterSlots: // another goroutine's clock was a little ahead
		slot = m.last
	case passed < 0 || passed >= meterSlots:
		m.counts, m.last = [meterSlots]int64{}, slot
	default:
		for ; m.last < slot; m.last++ {
			m.counts[(m.last+1)%meterSlots] = 0
		}
	}
	return &m.counts[slot%meterSlots]
}

// Count notes that n happened at now.
func (m *Meter) Count(now limits.Time, n int64) { *m.advance(now) += n }

// Sum returns how many happened in the period up to now.
func (m *Meter) Sum(now limits.Time) int64 { return m.Last(now, m.period) }

// Last returns how many happened in the last part of the period.
func (m *Meter) Last(now limits.Time, part time.Duration) int64 {
	m.advance(now)
	each := m.period / meterSlots
	var sum int64
	for i := range min(int64((part+each-1)/each), meterSlots) {
		sum += m.counts[(m.last-i+meterSlots)%meterSlots]
	}
	return sum
}
