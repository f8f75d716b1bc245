package process

import "syscall"

// diesWithParent has the kernel end Envoy when this process is gone, so that a
// killed test or demo leaves none behind.
func diesWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
