package extproc_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tollgate-dev/tollgate/envoy/envoytest"
	"github.com/tollgate-dev/tollgate/envoy/extproc"
)

// broken is a processor that does what ours must not do.
type broken struct {
	extprocv3.UnimplementedExternalProcessorServer

	process func(extprocv3.ExternalProcessor_ProcessServer) error
}

func (b broken) Process(stream extprocv3.ExternalProcessor_ProcessServer) error {
	return b.process(stream)
}

// TestAnswersPassWhateverHappens: whatever becomes of the processor, the answer
// arrives as the upstream sent it, and soon.
func TestAnswersPassWhateverHappens(t *testing.T) {
	binary := envoytest.Binary(t)
	refuse := row{status: 403, body: throttled}
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { refuse.write(w) }))
	t.Cleanup(upstream.Close)
	for name, process := range map[string]func(extprocv3.ExternalProcessor_ProcessServer) error{
		"not there":    nil,
		"hangs":        func(s extprocv3.ExternalProcessor_ProcessServer) error { <-s.Context().Done(); return nil },
		"ends at once": func(extprocv3.ExternalProcessor_ProcessServer) error { return nil },
		"fails":        func(extprocv3.ExternalProcessor_ProcessServer) error { return status.Error(codes.Internal, "a bug") },
		"panics":       func(extprocv3.ExternalProcessor_ProcessServer) error { panic("a bug") },
		"goes when it has asked for the body": func(s extprocv3.ExternalProcessor_ProcessServer) error {
			if _, err := s.Recv(); err != nil {
				return err
			}
			if err := s.Send(extproc.AskForBody(-1)); err != nil {
				return err
			}
			return status.Error(codes.Unavailable, "gone")
		},
		"answers itself": func(s extprocv3.ExternalProcessor_ProcessServer) error {
			if _, err := s.Recv(); err != nil {
				return err
			}
			return s.Send(&extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ImmediateResponse{ImmediateResponse: &extprocv3.ImmediateResponse{Body: []byte("mine")}}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var processor extprocv3.ExternalProcessorServer = extprocv3.UnimplementedExternalProcessorServer{}
			if process != nil {
				processor = broken{process: process}
			}
			addr := start(t, binary, upstream.Listener.Addr().String(), processor)
			transport := &http.Transport{DisableCompression: true}
			defer transport.CloseIdleConnections()
			began := time.Now()
			refuse.check(t, name, transport, addr, func() {})
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}
