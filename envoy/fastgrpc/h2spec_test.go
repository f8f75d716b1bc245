package fastgrpc_test

import (
	"encoding/xml"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tollgate-dev/tollgate/envoy/fastgrpc"
)

// h2specExceptions are the cases of h2spec that this server does not pass when
// it is asked as h2spec asks, by "GET /" without a gRPC content type: that is
// answered with a status and no body as soon as its header block is complete,
// where these cases count on a body or on a stream that stays open. They pass
// where each GET is made a call of gRPC on the way: see asCalls.
var h2specExceptions = map[string]string{
	"2. Streams and Multiplexing: Sends a WINDOW_UPDATE frame on half-closed (remote) stream":                                                                                           "wants a body",
	"2. Streams and Multiplexing: Sends a PRIORITY frame on half-closed (remote) stream":                                                                                                "wants a body",
	"5.1.2. Stream Concurrency: Sends HEADERS frames that causes their advertised concurrent stream limit to be exceeded":                                                               "no stream stays open",
	"6.9.1. The Flow-Control Window: Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 on a stream":                                                "no stream stays open",
	"8.1. HTTP Request/Response Exchange: Sends a second HEADERS frame without the END_STREAM flag":                                                                                     "no stream stays open",
	"8.1.2.1. Pseudo-Header Fields: Sends a HEADERS frame that contains a pseudo-header field as trailers":                                                                              "no stream stays open",
	"8.1.2.6. Malformed Requests and Responses: Sends a HEADERS frame with the \"content-length\" header field which does not equal the DATA frame payload length":                      "no stream stays open",
	"8.1.2.6. Malformed Requests and Responses: Sends a HEADERS frame with the \"content-length\" header field which does not equal the sum of the multiple DATA frames payload length": "no stream stays open",
	"6.5.3. Settings Synchronization: Sends multiple values of SETTINGS_INITIAL_WINDOW_SIZE":                                                                                            "skipped for want of a body",
	"6.9.1. The Flow-Control Window: Sends SETTINGS frame to set the initial window size to 1 and sends HEADERS frame":                                                                  "skipped for want of a body",
	"6.9.2. Initial Flow-Control Window Size: Changes SETTINGS_INITIAL_WINDOW_SIZE after sending HEADERS frame":                                                                         "skipped for want of a body",
	"6.9.2. Initial Flow-Control Window Size: Sends a SETTINGS frame for window size to be negative":                                                                                    "skipped for want of a body",
}

// TestH2Spec runs the conformance suite h2spec, which `make h2spec` fetches:
// as it is, and with its requests made calls of gRPC.
func TestH2Spec(t *testing.T) {
	t.Run("as it is", func(t *testing.T) {
		_, addr := serve(t, fastgrpc.Options{})
		failed, output := runH2Spec(t, addr)
		want := map[string]bool{}
		for name := range h2specExceptions {
			want[name] = true
		}
		if diff := cmp.Diff(want, failed); diff != "" {
			t.Errorf("cases not passed differ from those explained (-explained +got):\n%s\n%s", diff, output)
		}
	})
	t.Run("as calls", func(t *testing.T) {
		_, addr := serve(t, fastgrpc.Options{MaxStreams: 100})
		failed, output := runH2Spec(t, asCalls(t, addr))
		if len(failed) > 0 {
			t.Errorf("cases not passed: %v\n%s", failed, output)
		}
	})
}

// runH2Spec returns the names of the cases that were not passed, and what
// h2spec printed.
func runH2Spec(t *testing.T, addr string) (failed map[string]bool, output string) {
	t.Helper()
	binary := os.Getenv("H2SPEC")
	if found, _ := filepath.Glob("../../.tools/bin/h2spec-*"); binary == "" && len(found) > 0 {
		binary = found[0]
	}
	if testing.Short() || binary == "" {
		t.Skip("no h2spec: run `make h2spec`, or name it in $H2SPEC")
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	report := filepath.Join(t.TempDir(), "report.xml")
	// Its exit code only says whether there are failures.
	printed, _ := exec.Command(binary, "-h", host, "-p", port, "--strict", "-j", report).CombinedOutput()
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatalf("no report: %v\n%s", err, printed)
	}
	var suites struct {
		Suites []struct {
			Name  string `xml:"name,attr"`
			Cases []struct {
				Name    string    `xml:"classname,attr"`
				Failure *struct{} `xml:"failure"`
				Error   *struct{} `xml:"error"`
				Skipped *struct{} `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(text, &suites); err != nil {
		t.Fatal(err)
	}
	total := 0
	failed = map[string]bool{}
	for _, suite := range suites.Suites {
		for _, c := range suite.Cases {
			total++
			if c.Failure != nil || c.Error != nil || c.Skipped != nil {
				failed[fmt.Sprintf("%s: %s", suite.Name, c.Name)] = true
			}
		}
	}
	if total != 146 {
		t.Errorf("h2spec ran %d cases, want its 146", total)
	}
	return failed, string(printed)
}
