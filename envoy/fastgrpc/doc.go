// Package fastgrpc serves unary gRPC over HTTP/2 with one goroutine per
// connection.
//
// # Why
//
// A decision takes less than a microsecond. Most of what a general gRPC server
// adds is moving it about: a goroutine that reads, one per call, one that
// writes, and the wake-ups between them. Here a connection's goroutine reads
// what the kernel has, decides each call it finds, appends the answers, and
// writes all of them at once when nothing whole is left to read (or when they
// have come to 64 KiB). What remains
// is parsing, and two system calls for as many calls as arrived together.
//
// The price is that a handler which blocks holds up its connection. So what
// can wait says so (Call.Wait) and runs in one of a bounded set of goroutines;
// its answer is handed back to the connection's goroutine, which alone writes.
//
// # How it works
//
// There is one loop: conn.serve reads a frame with the Framer of
// golang.org/x/net/http2 and acts on it. The Framer reads through a buffer
// from source, which is asked for bytes exactly when the buffer holds no whole
// frame any more. That is the one place where the goroutine sleeps, and before
// it does, it answers the calls that have finished waiting, does what is due
// by the clock, and flushes (loop.go). Others wake it by setting a read
// deadline in the past, under the connection's mutex; timers are the same
// deadline in the future. So no state but that hand-over needs a lock.
//
// Nothing is written behind the loop's back, hence there is no queue to bound:
// a client that does not read stops being read from, and is closed after
// Options.WriteTimeout; what it had sent until then is not decided any more.
//
// Frames and HPACK are x/net's. One liberty is taken: a HEADERS frame without
// priority is read as the DATA frame that it resembles bit for bit, because the
// Framer reuses DATA frames and allocates HEADERS frames (conn.readHeaders).
//
// # What a request allocates
//
// Nothing, once warm, as long as the client sends its header fields by index.
// Each field that comes as a literal costs a string for its value (and one for
// a name that is no index), inside x/net's decoder. Seen on the wire: Envoy
// 1.40 sends :path as a literal without indexing with each call, hence one
// allocation, and all else by index; grpc-go's client sends by index all but
// a grpc-timeout that is not among its last sixty or so, as it writes what is
// left of the deadline. A traceparent is always new.
//
// Nor does counting a call look at the clock: a Handler that is a Counter is told
// of all calls at once that came with one read and ended alike.
//
// A call that waits (Call.Wait) costs eight allocations and the wake-ups of a
// goroutine and back, several times what it costs to decide it in the loop.
//
// # What it implements
//
// Of RFC 9113: the preface, by prior knowledge or ALPN; all frame types;
// padding, priority fields (read and ignored), CONTINUATION; the states of
// streams, with frames on closed streams told from frames still under way to
// one that the server has reset; flow control in both directions, with SETTINGS changes that make
// windows negative; SETTINGS and their acknowledgement; PING; GOAWAY in two
// steps; the rules for malformed requests of section 8, content-length
// included. Of RFC 7541 all, through x/net; answers use the dynamic table for
// two fields.
//
// Of gRPC over HTTP/2: unary calls, in whatever frames; timeouts; metadata;
// statuses, with percent-encoded messages; the HTTP statuses 400, 405, 415 and
// 431 beside a gRPC status where the request is no gRPC; UNIMPLEMENTED, at
// once, for unknown methods and for compression.
//
// Statuses are grpc-go's in all of this, which a fuzzer checks, but for these:
// a header list over the limit is RESOURCE_EXHAUSTED instead of a reset, gzip is
// refused even where the program has it for others, and what RFC 9113 calls
// malformed and grpc-go lets through (a wrong content-length, te,
// transfer-encoding) is reset with PROTOCOL_ERROR. The words of a refusal that
// no handler made are not always grpc-go's.
//
// # What it does not
//
// No streaming methods, compression, server push, priorities, upgrade from
// HTTP/1.1, CONNECT, trailers of the client's (read and dropped), response
// metadata, status details, reflection. A deadline is not enforced on a handler
// that runs in the loop, since it does not wait; for one that waits it ends the
// context.
//
// # What is bounded, and what against
//
//   - Frames that ask for nothing (PING, SETTINGS, RST_STREAM, PRIORITY,
//     WINDOW_UPDATE, CONTINUATION, empty DATA, unknown types, frames for closed
//     streams) are paid for from a budget that answered calls and time fill
//     again: budget.go. This covers rapid reset and the floods.
//   - A stream that was reset while its call waits counts as open until the
//     waiting goroutine has returned.
//   - Header blocks: twice Options.MaxHeaderBytes encoded ends the connection,
//     once decoded refuses the call. Bombs (small blocks that decode to large
//     ones) are measured decoded, and not kept.
//   - Memory of requests not yet complete and of those that wait, of their
//     metadata, and of answers that flow control holds back: Options.MaxBufferedBytes
//     for each connection, Options.MaxBufferedTotal for all (memory.go).
//   - Time: for the handshake, for a write, for a request to become complete,
//     for an answer to be taken (a window that never opens), for a keepalive
//     PING to be answered.
//   - Numbers: connections, streams per connection, waiting calls.
package fastgrpc
