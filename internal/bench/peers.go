package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
)

// startPeer starts another rate limit service for each mix, with as many keys
// as the smallest number of consumers.
func (p plan) startPeer(name, dir string, begin func() *service) (subjects []subject, err error) {
	for _, mix := range p.mixes {
		dir := filepath.Join(dir, name+"-"+mix)
		if err := os.Mkdir(dir, 0o700); err != nil {
			return nil, err
		}
		s := subject{server: name, consumers: p.consumers[0], mix: mix, apis: []string{"ratelimit"}, service: begin()}
		if name == "ratelimit" {
			s.target, err = p.startRatelimit(dir, mix, s.service)
		} else {
			s.target, err = p.startLimitador(dir, mix, s.service)
		}
		if err != nil {
			return nil, err
		}
		subjects = append(subjects, s)
	}
	return subjects, nil
}

// startRatelimit starts envoyproxy/ratelimit and its Redis as its README has
// them, but for statsd, which would have nobody to send to, and for its log.
func (p plan) startRatelimit(dir, mix string, s *service) (string, error) {
	addresses, err := freeAddresses(4)
	if err != nil {
		return "", err
	}
	redis, err := exec.LookPath("redis-server")
	if err != nil {
		return "", fmt.Errorf("envoyproxy/ratelimit needs one: %w", err)
	}
	_, port, _ := net.SplitHostPort(addresses[0])
	if err := s.start(addresses[0], nil, redis, "--bind", "127.0.0.1", "--port", port, "--save", "", "--dir", dir); err != nil {
		return "", err
	}
	env := []string{
		"BACKEND_TYPE=redis", "REDIS_SOCKET_TYPE=tcp", "REDIS_URL=" + addresses[0],
		"USE_STATSD=false", "LOG_LEVEL=error",
		"RUNTIME_ROOT=" + dir, "RUNTIME_SUBDIRECTORY=ratelimit", "RUNTIME_WATCH_ROOT=false",
	}
	for i, name := range []string{"GRPC", "", "DEBUG"} {
		host, port, _ := net.SplitHostPort(addresses[i+1])
		prefix := name
		if prefix != "" {
			prefix += "_"
		}
		env = append(env, prefix+"HOST="+host, prefix+"PORT="+port)
	}
	config := filepath.Join(dir, "ratelimit", "config")
	if err := os.MkdirAll(config, 0o700); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(config, "bench.yaml"), fmt.Appendf(nil, ruleFile, limitsOf[mix].rule), 0o600); err != nil {
		return "", err
	}
	return addresses[1], s.start(addresses[1], env, p.ratelimit)
}

const limitadorFile = `- namespace: bench
  max_value: %d
  seconds: 3600
  conditions: []
  variables: ["descriptors[0]['user']"]
`

func (p plan) startLimitador(dir, mix string, s *service) (string, error) {
	addresses, err := freeAddresses(2)
	if err != nil {
		return "", err
	}
	limits := filepath.Join(dir, "limits.yaml")
	if err := os.WriteFile(limits, fmt.Appendf(nil, limitadorFile, limitsOf[mix].perHour), 0o600); err != nil {
		return "", err
	}
	_, rls, _ := net.SplitHostPort(addresses[0])
	_, http, _ := net.SplitHostPort(addresses[1])
	return addresses[0], s.start(addresses[0], nil, p.limitador, "--rls-ip", "127.0.0.1", "--rls-port", rls, "--http-ip", "127.0.0.1", "--http-port", http, limits, "memory")
}
