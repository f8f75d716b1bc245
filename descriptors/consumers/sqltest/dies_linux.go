package sqltest

import "syscall"

// dieWithParent ends a server whose test was killed.
func dieWithParent(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGKILL }
