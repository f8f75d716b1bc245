package fastgrpc

import (
	"bytes"
	"strconv"

	"golang.org/x/net/http2/hpack"
)

// replyHeaders encodes the header blocks of answers. Two fields are put into
// the client's HPACK table: "content-type: application/grpc" and
// "grpc-status: 0". Once it holds both, the two blocks of a good answer are
// the same few index bytes each time, and are kept. Everything else is sent as
// "never indexed", which leaves the table, and so those bytes, as they are.
//
// What the methods return is valid until the next call.
type replyHeaders struct {
	buf bytes.Buffer
	enc *hpack.Encoder

	begun, ended       bool   // the client's table has the one field, the other
	beginning, closing []byte // the blocks, once they have become constant
}

// smallTable is the least table size at which both fields surely stay in.
const smallTable = 256

func (r *replyHeaders) init() { r.enc = hpack.NewEncoder(&r.buf) }

// setTableSize takes the client's SETTINGS_HEADER_TABLE_SIZE.
func (r *replyHeaders) setTableSize(size uint32) {
	r.enc.SetMaxDynamicTableSize(size)
	r.begun, r.ended, r.beginning, r.closing = false, false, nil, nil
}

// begin is the block that opens a good answer.
func (r *replyHeaders) begin() []byte {
	if r.beginning != nil {
		return r.beginning
	}
	r.buf.Reset()
	r.fields()
	r.begun = true
	return r.buf.Bytes()
}

// end is the block that closes a good answer.
func (r *replyHeaders) end() []byte {
	if r.closing != nil {
		return r.closing
	}
	r.buf.Reset()
	r.field("grpc-status", "0")
	r.ended = true
	if !r.begun || r.enc.MaxDynamicTableSize() < smallTable {
		return r.buf.Bytes()
	}
	// Both fields are in the table: encoding them again changes nothing, so
	// the blocks need not be sent to be kept.
	last := bytes.Clone(r.buf.Bytes())
	r.buf.Reset()
	r.fields()
	r.beginning = bytes.Clone(r.buf.Bytes())
	r.buf.Reset()
	r.field("grpc-status", "0")
	r.closing = bytes.Clone(r.buf.Bytes())
	return last
}

// only is the one block of an answer without a message.
func (r *replyHeaders) only(httpStatus int, status Status) []byte {
	r.buf.Reset()
	if httpStatus == 200 {
		r.field(":status", "200")
	} else {
		r.once(":status", strconv.Itoa(httpStatus))
	}
	r.once("content-type", "application/grpc")
	r.once("grpc-status", strconv.FormatUint(uint64(status.Code), 10))
	if status.Code == Unimplemented {
		r.once("grpc-accept-encoding", "identity") // gRPC's "Compression": it may have been about that
	}
	if status.Message != "" {
		r.once("grpc-message", percentEncode(status.Message))
	}
	return r.buf.Bytes()
}

func (r *replyHeaders) fields() {
	r.field(":status", "200")
	r.field("content-type", "application/grpc")
}

// field encodes a field that may enter the table. The encoder writes to a
// bytes.Buffer, which never fails.
func (r *replyHeaders) field(name, value string) {
	_ = r.enc.WriteField(hpack.HeaderField{Name: name, Value: value})
}

// once encodes a field that must not.
func (r *replyHeaders) once(name, value string) {
	_ = r.enc.WriteField(hpack.HeaderField{Name: name, Value: value, Sensitive: true})
}
