package limits

// GraceStart returns when the limiter's last grace began, or 0 if it has had
// none. The consumers' registry keeps it over a restart.
func (l *Limiter) GraceStart() Time { panic("skeleton") }

// NewWithoutGrace is New for a key that is known already: the limiter starts
// full and exact, and the first grace it may get is that after an idle period.
// It is for a limit that is added to a token in use.
func NewWithoutGrace(s *Spec, now Time) *Limiter { panic("skeleton") }
