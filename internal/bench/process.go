package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
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
	started := make(chan error)
	go func() {
		// The kernel sends Pdeathsig once the thread ends that started a process, be
		// there others: an open loop ends with its thread, which must not be this one.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		if started <- err; err == nil {
			p.done <- p.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
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

// usage reads the process's CPU clock, which counts nanoseconds where
// /proc/PID/stat has hundredths of a second, and its memory.
func (p *process) usage() (usage, error) {
	pid := p.cmd.Process.Pid
	var cpu unix.Timespec
	if err := unix.ClockGettime(cpuClock(pid), &cpu); err != nil {
		return usage{}, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return usage{}, err
	}
	fields := strings.Fields(string(data)) // proc_pid_statm(5): size, resident, …
	if len(fields) < 2 {
		return usage{}, errors.New("/proc/PID/statm: not in the form that proc_pid_statm(5) gives")
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return usage{CPU: time.Duration(cpu.Nano()), Resident: pages * int64(os.Getpagesize())}, err
}

// cpuClock is what clock_getcpuclockid(3) returns for a process: the kernel's
// MAKE_PROCESS_CPUCLOCK of CPUCLOCK_SCHED.
func cpuClock(pid int) int32 { return ^int32(pid)<<3 | 2 }
