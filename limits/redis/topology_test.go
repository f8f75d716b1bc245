package redis

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tollgate-dev/tollgate/limits"
	"github.com/tollgate-dev/tollgate/limits/pressure"
	"github.com/tollgate-dev/tollgate/limits/redis/redistest"
)

// sharesTen checks that two instances admit ten of a quota of ten, together.
func sharesTen(t *testing.T, o Options, group string) {
	t.Helper()
	for _, mode := range []Mode{Leased, Strict} {
		o.Mode, o.OnError = mode, limits.OnErrorDeny
		c, d := join(t, o), join(t, o)
		spec := compile(t, limits.Limit{Kind: limits.Quota, N: 10, Calendar: limits.Day})
		a, b := c.limiter(spec, group, string(mode)), d.limiter(spec, group, string(mode))
		admitted := 0
		for i := range 30 {
			from, l := c, a
			if i%2 == 1 {
				from, l = d, b
			}
			answer := from.take(l, 1)
			if answer.Allowed {
				admitted++
			}
			if answer.Undecided {
				t.Fatalf("%s: undecided: %+v", mode, from.Stats())
			}
		}
		if admitted != 10 {
			t.Errorf("%s: %d admitted of ten", mode, admitted)
		}
	}
}

// neededACL is the rule that the package documentation gives.
func neededACL(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, rule, found := strings.Cut(string(text), "ACL SETUSER tollgate ")
	if !found {
		t.Fatal("no rule in the documentation")
	}
	rule, _, _ = strings.Cut(rule, "\n//\n")
	words := strings.Fields(strings.ReplaceAll(rule, "//", ""))
	if strings.HasPrefix(redistest.Start(t).CLI("info", "server"), "# Server\r\nredis_version:6.") {
		words = slices.DeleteFunc(words, func(w string) bool { return w == "+cluster|shards" })
	}
	return words
}

// TestEveryPermissionIsNeeded takes away one after the other of what the
// documentation asks for: without it something fails, with all nothing does.
func TestEveryPermissionIsNeeded(t *testing.T) {
	s := redistest.Start(t)
	rule := neededACL(t)
	user := 0
	fails := func(words []string, idle time.Duration) bool {
		user++
		name := "u" + itoa(user)
		if out := s.CLI(append([]string{"acl", "setuser", name}, words...)...); out != "OK" {
			t.Fatal(out)
		}
		s.CLI("script", "flush")
		s.CLI("acl", "log", "reset")
		o := Options{Addresses: []string{s.Addr}, Username: name, Password: "SECRET", Clock: limits.NewClock(), OnError: limits.OnErrorDeny}
		bad := false
		for _, o.Mode = range []Mode{Strict, Leased} {
			c := join(t, o)
			l := c.limiter(compile(t, limits.Limit{Kind: limits.Window, N: 100, Period: time.Second}), name, string(o.Mode))
			bad = bad || !c.take(l, 1).Allowed
			if _, err := c.Pressure().Claim(t.Context(), pressure.Report{ID: name, Share: pressure.SavedShare{Value: 0.5}, ShareNew: true}, time.Second); err != nil {
				bad = true
			}
			for end := time.Now().Add(idle); time.Now().Before(end) && s.CLI("acl", "log") == ""; time.Sleep(20 * time.Millisecond) {
				// a connection is looked after
			}
			c.Close()
			bad = bad || c.Stats().Errors > 0 || c.Stats().Corrupt > 0
		}
		return bad || s.CLI("acl", "log") != "" // what was asked for in vain
	}
	if fails(rule, 1200*time.Millisecond) {
		t.Fatalf("%v do not do", rule)
	}
	for i, word := range rule {
		idle := time.Duration(0)
		if word == "+ping" {
			idle = patience
		}
		// Which way to find out about a cluster is taken depends on the server.
		if strings.HasPrefix(word, "+") && !strings.HasPrefix(word, "+cluster|") && !fails(slices.Delete(slices.Clone(rule), i, i+1), idle) {
			t.Errorf("%s is not needed", word)
		}
	}
}

// TestNeededACL has a user who may do what the package documentation says, and
// no more, and one who may not write.
func TestNeededACL(t *testing.T) {
	s := redistest.Start(t)
	if out := s.CLI(append([]string{"acl", "setuser", "tollgate"}, neededACL(t)...)...); out != "OK" {
		t.Fatal(out)
	}
	s.CLI("acl", "setuser", "reader", "on", ">SECRET", "~*", "+@read", "+@connection")
	s.CLI("acl", "setuser", "default", "off")
	sharesTen(t, Options{Addresses: []string{s.Addr}, Username: "tollgate", Password: "SECRET"}, "g")

	for name, o := range map[string]Options{
		"a wrong password": {Username: "tollgate", Password: "wrong"},
		"no password":      {},
		"another prefix":   {Username: "tollgate", Password: "SECRET", Prefix: "other"},
		"a reader":         {Username: "reader", Password: "SECRET"},
	} {
		o.Addresses, o.OnError = []string{s.Addr}, limits.OnErrorDeny
		c := join(t, o)
		d := c.take(c.limiter(compile(t, limits.Limit{Kind: limits.Pace, N: 1, Period: time.Second}), "g", "k"), 1)
		if d.Allowed || !d.Undecided || c.Stats().Up {
			t.Errorf("with %s: %+v, %+v", name, d, c.Stats())
		}
	}
}

func TestTLS(t *testing.T) {
	redistest.Need(t, "redis-server")
	dir := t.TempDir()
	roots := certificate(t, dir)
	port := redistest.FreePort(t)
	redistest.Start(t, "--tls-port", itoa(port), "--tls-cert-file", dir+"/cert.pem", "--tls-key-file", dir+"/key.pem", "--tls-ca-cert-file", dir+"/cert.pem", "--tls-auth-clients", "no")
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	sharesTen(t, Options{Addresses: []string{addr}, TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}, "g")
	c := join(t, Options{Addresses: []string{addr}, TLS: &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}})
	if c.Stats().Up {
		t.Error("a certificate that nobody vouches for is believed")
	}
}

// certificate makes a server's certificate that is its own authority.
func certificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "redis"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool
}

// startSentinel runs a master with a replica, and a sentinel that finds it down
// after a while.
func startSentinel(t *testing.T, down time.Duration) (master, replica, sentinel *redistest.Server) {
	t.Helper()
	redistest.Need(t, "redis-sentinel")
	master = redistest.Start(t)
	host, port, _ := net.SplitHostPort(master.Addr)
	replica = redistest.Start(t, "--replicaof", host, port, "--repl-diskless-sync-delay", "0")
	eventually(t, 10*time.Second, func() bool { return strings.Contains(replica.CLI("info", "replication"), "master_link_status:up") },
		func() string { return replica.CLI("info", "replication") })
	sentinel = redistest.StartSentinel(t, fmt.Sprintf("sentinel monitor mine %s %s 1\nsentinel down-after-milliseconds mine %d\nsentinel failover-timeout mine 1000\n", host, port, down.Milliseconds()))
	eventually(t, 30*time.Second, func() bool { return strings.Contains(sentinel.CLI("info", "sentinel"), "slaves=1") }, func() string { return sentinel.CLI("info", "sentinel") })
	return master, replica, sentinel
}

// TestSentinelFailsOver kills the master: the sentinel makes the replica one,
// and the limit goes on with it, without anything that was used coming back.
func TestSentinelFailsOver(t *testing.T) {
	t.Parallel()
	master, replica, sentinel := startSentinel(t, time.Second)
	o := Options{Addresses: []string{sentinel.Addr}, SentinelMaster: "mine"}
	sharesTen(t, o, "g")
	c := join(t, o)
	l := c.limiter(compile(t, limits.Limit{Kind: limits.Quota, N: 20, Calendar: limits.Day}), "g", "over")
	admitted := 0
	for range 12 {
		if c.take(l, 1).Allowed {
			admitted++
		}
	}
	master.Kill()
	eventually(t, 20*time.Second, func() bool {
		if c.take(l, 1).Allowed {
			admitted++
		}
		return strings.Contains(replica.CLI("role"), "master") && c.Stats().Up
	}, sentinel.Log)
	settled(t, c)
	for range 40 {
		if c.take(l, 1).Allowed {
			admitted++
		}
	}
	if admitted != 20 {
		t.Errorf("%d admitted of a quota of 20, over a failover", admitted)
	}
}

// TestRedisCluster shares limits on three masters, takes requests together
// whose limits lie in different slots, and goes on with the others when one dies.
func TestRedisCluster(t *testing.T) {
	t.Parallel()
	redistest.Need(t, "redis-cli")
	var nodes []*redistest.Server
	create := []string{"--cluster", "create", "--cluster-yes"}
	for range 3 {
		n := redistest.Start(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "60000", "--cluster-require-full-coverage", "no")
		nodes = append(nodes, n)
		create = append(create, n.Addr)
	}
	if out, err := redistest.CLI(create...); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	eventually(t, 20*time.Second, func() bool {
		for _, n := range nodes {
			if !strings.Contains(n.CLI("cluster", "info"), "cluster_state:ok") {
				return false
			}
		}
		return true
	}, func() string { return nodes[0].CLI("cluster", "info") })
	o := Options{Addresses: []string{nodes[0].Addr, nodes[1].Addr}, OnError: limits.OnErrorDeny}
	for i := range 6 {
		sharesTen(t, o, itoa(i))
	}

	o.Mode = Strict
	c := join(t, o)
	wide := compile(t, limits.Limit{Kind: limits.Quota, N: 10, Calendar: limits.Day})
	tight := compile(t, limits.Limit{Kind: limits.Quota, N: 3, Calendar: limits.Day})
	claims := []limits.Claim{{N: 1}, {N: 1}, {N: 1}}
	for i, spec := range []*limits.Spec{wide, tight, wide} {
		claims[i].Limiter = c.limiter(spec, "apart"+itoa(i), "k")
	}
	admitted := 0
	for range 8 {
		if refused, err := c.TakeAll(t.Context(), nil, c.now(), claims); err != nil || refused >= 0 && refused != 1 {
			t.Fatalf("refused by %d, %v: %+v", refused, err, claims)
		} else if refused < 0 {
			admitted++
		}
	}
	left := []limits.Claim{{Limiter: claims[0].Limiter}, {Limiter: claims[2].Limiter}}
	_, _ = c.PeekAll(t.Context(), c.now(), left)
	if admitted != 3 || left[0].Decision.Remaining != 7 || left[1].Decision.Remaining != 7 {
		t.Errorf("%d admitted, %+v left: want three, and what was refused given back", admitted, left)
	}

	nodes[2].Kill()
	undecided, decided := 0, 0
	for range 2 { // the first time finds out
		undecided, decided = 0, 0
		for i := range 30 {
			if d := c.take(c.limiter(wide, "node"+itoa(i), "k"), 1); d.Undecided {
				undecided++
			} else if d.Allowed {
				decided++
			}
		}
	}
	if undecided < 3 || decided < 10 {
		t.Errorf("with one of three masters gone %d limits are decided and %d not, want about 20 and 10", decided, undecided)
	}
}
