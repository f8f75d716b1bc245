package main

import (
	"fmt"
	"os"
	"runtime/debug"
)

func main() {
	fail(run(os.Args[1:]))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run does what is asked for: to measure, or to be a server that is measured.
func run(args []string) error {
	if len(args) == 2 && args[0] == "floor" {
		return serveFloor(args[1])
	}
	if len(args) == 4 && args[0] == "serve" {
		return serveTollgate(args[1], args[2], args[3])
	}
	// What measures is not to be measured: its collector runs next to never.
	debug.SetGCPercent(2000)
	if len(args) > 0 && args[0] == "envoy" {
		return runEnvoy(args[1:], os.Stdout)
	}
	if len(args) > 0 && args[0] == "many" {
		return runMany(args[1:], os.Stdout)
	}
	p, err := parsePlan(args)
	if err != nil {
		return err
	}
	return p.run(os.Stdout)
}
