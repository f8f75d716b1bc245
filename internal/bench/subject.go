package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"time"
)

// subject is a server in a state: a row of the tables.
type subject struct {
	server    string
	consumers int    // 0: whatever is asked
	mix       string // of limits; empty: none
	apis      []string
	target    string
	service   *service
}

func (s subject) String() string {
	if s.mix == "" {
		return s.server
	}
	return fmt.Sprintf("%s, %s, %s", s.server, grouped(s.consumers), s.mix)
}

func (s subject) serves(api string) bool { return slices.Contains(s.apis, api) }

// service is the processes that are measured together.
type service struct {
	processes []*process
}

// start adds a process and waits until it accepts connections on target.
func (s *service) start(target string, env []string, command ...string) error {
	p, err := start(target, env, command...)
	if err == nil {
		s.processes = append(s.processes, p)
	}
	return err
}

func (s *service) stop() {
	for _, p := range slices.Backward(s.processes) {
		p.stop()
	}
}

func (s *service) usage() (usage, error) {
	var sum usage
	var errs []error
	for _, p := range s.processes {
		u, err := p.usage()
		sum.CPU += u.CPU
		sum.Resident += u.Resident
		errs = append(errs, err)
	}
	return sum, errors.Join(errs...)
}

// startAll starts every server of the plan, each number of consumers and each
// mix in a process of its own, so that all can take turns. stop is to be called
// whatever the error.
func (p plan) startAll(dir string) (subjects []subject, stop func(), err error) {
	tollgates := map[string]tollgate{} // by what they are told of, consumers and mix
	var services []*service
	stop = func() {
		for _, s := range services {
			s.stop()
		}
	}
	begin := func() *service {
		services = append(services, new(service))
		return services[len(services)-1]
	}
	for _, name := range p.servers {
		var more []subject
		switch name {
		case "floor":
			more, err = p.startFloor(begin())
		case "ratelimit", "limitador":
			more, err = p.startPeer(name, dir, begin)
		default:
			more, err = p.startTollgates(name, dir, tollgates, begin)
		}
		if err != nil {
			return nil, stop, fmt.Errorf("%s: %w", name, err)
		}
		subjects = append(subjects, more...)
	}
	return subjects, stop, nil
}

func (p plan) startFloor(s *service) ([]subject, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return []subject{{server: "floor", apis: p.apis, target: address, service: s}}, s.start(address, nil, self, "floor", address)
}

// Ports that are given out stand below those that the kernel takes for the other
// end of connections (32768 and above), so that no connection can have one between
// its choice and its use.
const firstPort, lastPort = 10_000, 32_000

// freeAddress returns a loopback address that nobody listens on.
func freeAddress() (string, error) {
	var errs []error
	for range 100 {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(firstPort+rand.IntN(lastPort-firstPort))))
		if err == nil {
			return l.Addr().String(), l.Close()
		}
		errs = append(errs, err)
	}
	return "", fmt.Errorf("no free port: %w", errs[0])
}

// freeAddresses returns several, all different.
func freeAddresses(n int) ([]string, error) {
	var all []string
	for len(all) < n {
		address, err := freeAddress()
		if err != nil {
			return nil, err
		}
		if !slices.Contains(all, address) {
			all = append(all, address)
		}
	}
	return all, nil
}

// still waits until services that are not driven use next to no CPU, for two looks
// at them: a collection after what was done before, or what a reload left to do,
// would be measured with what comes next. One that never rests is waited for no
// longer than patience.
func still(all []*service, patience time.Duration) {
	const look, share = 50 * time.Millisecond, 50
	used := func() (sum time.Duration) {
		for _, s := range all {
			u, _ := s.usage() // a process that died uses nothing
			sum += u.CPU
		}
		return sum
	}
	last := used()
	for quiet, begin := 0, time.Now(); quiet < 2 && time.Since(begin) < patience; {
		time.Sleep(look)
		now := used()
		if quiet++; now-last > look/share {
			quiet = 0
		}
		last = now
	}
}

// servicesOf are those of subjects, each once.
func servicesOf(subjects []subject) (all []*service) {
	for _, s := range subjects {
		if !slices.Contains(all, s.service) {
			all = append(all, s.service)
		}
	}
	return all
}

// peer reports whether a subject is somebody else's: what becomes of it ends no run.
func (s subject) peer() bool { return s.server == "ratelimit" || s.server == "limitador" }
