package limits

import "unsafe"

// SizeOfBucket is what a limiter has beside its handle.
const SizeOfBucket = unsafe.Sizeof(bucket{})

// InitLimiter makes a limiter in place, as the table does in its entries.
func InitLimiter(l *Limiter, s *Spec, now Time) { l.init(s, now) }
