package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a server under measurement.
type process struct {
	cmd    *exec.Cmd
	output bytes.Buffer
	done   chan error
}

// start runs a command, with more in its environment, and waits until target
// accepts connections.
func start(target string, env []string, command ...string) (*process, error) {
	p := &process{cmd: exec.Command(command[0], command[1:]...), done: make(chan error, 1)}
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { p.done <- p.cmd.Wait() }()
	network, address := split(target)
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-p.done:
			return nil, fmt.Errorf("%s ended: %w\n%s", command[0], err, p.output.String())
		default:
		}
		if c, err := net.Dial(network, address); err == nil {
			_ = c.Close()
			return p, nil
		}
	}
	p.stop()
	return nil, fmt.Errorf("%s does not listen on %s\n%s", command[0], target, p.output.String())
}

// stopWithin is how long a process may take to end; profiled ones write their
// profile then.
const stopWithin = 10 * time.Second

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGINT) // an error means that it has ended
	select {
	case <-p.done:
	case <-time.After(stopWithin):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// usage is what a process has used so far.
type usage struct {
	CPU      time.Duration // user and system
	Resident int64         // bytes, now
}

// clockTick is USER_HZ, which Linux fixes at 100 for /proc on every
// architecture Go runs on.
const clockTick = time.Second / 100

// usage reads /proc/PID/stat; see proc_pid_stat(5).
func (p *process) usage() (usage, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return usage{}, err
	}
	_, after, ok := strings.Cut(string(data), ") ")
	fields := strings.Fields(after)
	if !ok || len(fields) < 22 {
		return usage{}, errors.New("/proc/PID/stat: not in the form that proc_pid_stat(5) gives")
	}
	number := func(field int) int64 { // counted as the manual does, from 1
		n, _ := strconv.ParseInt(fields[field-3], 10, 64)
		return n
	}
	return usage{
		CPU:      time.Duration(number(14)+number(15)) * clockTick,
		Resident: number(24) * int64(os.Getpagesize()),
	}, nil
}
