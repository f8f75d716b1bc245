package demo

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// upstream is the API that Envoy stands before.
type upstream struct {
	addr   string
	server *http.Server
	ended  sync.WaitGroup
}

func startUpstream() (*upstream, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	u := &upstream{addr: lis.Addr().String(), server: &http.Server{
		Protocols:         protocols,
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "hello %s, from the API\n", r.Header.Get("x-tollgate-consumer"))
		}),
	}}
	u.ended.Go(func() { _ = u.server.Serve(lis) }) // ends with stop
	return u, nil
}

func (u *upstream) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := u.server.Shutdown(ctx)
	if err != nil {
		err = u.server.Close()
	}
	u.ended.Wait()
	return err
}
