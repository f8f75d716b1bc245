package limits

import "time"

// ParseRate reads N/UNIT: "100/s", "200/10s", "1/2s", "10/m".
func ParseRate(s string) (n int64, period time.Duration, err error) { panic("skeleton") }

// ParseQuota reads N/PERIOD: "10000/day".
func ParseQuota(s string) (n int64, c Calendar, err error) { panic("skeleton") }
