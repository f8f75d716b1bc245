package redistest_test

import (
	"net"
	"testing"

	"github.com/tollgate-dev/tollgate/limits/redis/redistest"
)

func TestFreePortIsNoClients(t *testing.T) {
	for range 100 {
		port := redistest.FreePort(t)
		if port >= 32_768 || port+10_000 >= 32_768 {
			t.Fatalf("port %d, which a connection may have", port)
		}
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
