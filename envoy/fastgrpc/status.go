package fastgrpc

import (
	"fmt"
	"strings"
)

// Code is a gRPC status code, as listed in
// https://grpc.io/docs/guides/status-codes/.
type Code uint32

// The codes of gRPC.
const (
	OK                 Code = 0
	Canceled           Code = 1
	Unknown            Code = 2
	InvalidArgument    Code = 3
	DeadlineExceeded   Code = 4
	NotFound           Code = 5
	AlreadyExists      Code = 6
	PermissionDenied   Code = 7
	ResourceExhausted  Code = 8
	FailedPrecondition Code = 9
	Aborted            Code = 10
	OutOfRange         Code = 11
	Unimplemented      Code = 12
	Internal           Code = 13
	Unavailable        Code = 14
	DataLoss           Code = 15
	Unauthenticated    Code = 16
)

// Status is how a call ended. The zero value is OK.
type Status struct {
	Code Code
	// Message is for people. It may hold any text: it is percent-encoded on
	// the wire, and cut after 1024 bytes.
	Message string
}

func statusf(code Code, format string, args ...any) Status {
	return Status{Code: code, Message: fmt.Sprintf(format, args...)}
}

const maxMessage = 1024

// percentEncode writes a message as the grpc-message field wants it: printable
// ASCII but '%' as it is, every other byte as %XX. Bytes that are no UTF-8
// become the replacement character first, as clients expect text.
func percentEncode(message string) string {
	if len(message) > maxMessage {
		message = message[:maxMessage]
	}
	message = strings.ToValidUTF8(message, "\uFFFD")
	plain := func(b byte) bool { return b >= ' ' && b <= '~' && b != '%' }
	extra := 0
	for i := range len(message) {
		if !plain(message[i]) {
			extra += 2
		}
	}
	if extra == 0 {
		return message
	}
	const hex = "0123456789ABCDEF"
	encoded := make([]byte, 0, len(message)+extra)
	for i := range len(message) {
		if b := message[i]; plain(b) {
			encoded = append(encoded, b)
		} else {
			encoded = append(encoded, '%', hex[b>>4], hex[b&15])
		}
	}
	return string(encoded)
}
