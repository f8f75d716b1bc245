package redistest

// Fault is something that happens to a server, and how it ends.
type Fault struct {
	Name       string
	Begin, End func(*Server)
	Breaks     bool // decisions are made without Redis meanwhile
}

// Faults returns all that may happen to one server.
func Faults() []Fault {
	nothing := func(*Server) {}
	return []Fault{
		{"dies", (*Server).Kill, (*Server).Up, true},
		{"stalls", (*Server).Stall, (*Server).Resume, true},
		{"is flushed", func(s *Server) { s.CLI("flushall") }, nothing, false},
		{"forgets its scripts", func(s *Server) { s.CLI("script", "flush") }, nothing, false},
		{"refuses writes", func(s *Server) { s.CLI("replicaof", "127.0.0.1", "1") }, func(s *Server) { s.CLI("replicaof", "no", "one") }, true},
		{"is full", func(s *Server) {
			s.CLI("config", "set", "maxmemory", "1")
			s.CLI("config", "set", "maxmemory-policy", "noeviction")
		}, func(s *Server) { s.CLI("config", "set", "maxmemory", "0") }, true},
	}
}
