package redistest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// The ports that are given out: below those that the kernel takes for the other
// end of connections (32768 and above), and so that the bus of a node of a
// cluster, 10000 above, is too.
const firstPort, lastPort = 10_000, 22_000

// FreePort returns a port of 127.0.0.1 that nobody listens on, for a server that
// cannot be told to find one itself or that comes back on the port it had. No
// connection can have it meanwhile, be it one from a client to that very port,
// which would be connected to itself.
func FreePort(tb testing.TB) int {
	tb.Helper()
	for range 100 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if free(port) && free(port+10_000) {
			return port
		}
	}
	tb.Fatal("no free port")
	return 0
}

// FreeAddr is FreePort as HOST:PORT.
func FreeAddr(tb testing.TB) string {
	tb.Helper()
	return fmt.Sprintf("127.0.0.1:%d", FreePort(tb))
}

func free(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	return err == nil && l.Close() == nil
}
