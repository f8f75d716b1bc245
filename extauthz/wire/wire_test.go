package wire_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/apipb"

	"github.com/tollgate-dev/tollgate/extauthz/wire"
)

// FuzzNext compares with protowire: the same fields, and the same opinion of what
// is malformed.
func FuzzNext(f *testing.F) {
	for _, b := range [][]byte{nil, {0x08, 1}, {0x0a, 1, 'a', 0x10, 2}, {0x0a, 9}, {0x0b, 0x08, 1, 0x0c}, {0x0d, 1, 2, 3, 4}, {0x00}, {0xff}, {0x0f}} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			got, rest, ok := wire.Next(b)
			number, kind, n := protowire.ConsumeField(b)
			if ok != (n >= 0 && number <= protowire.MaxValidNumber) { // a bound that only the decoder keeps
				t.Fatalf("Next(%x): %t, but protowire: %d", b, ok, n)
			}
			if !ok {
				return
			}
			want := wire.Field{Tag: protowire.EncodeTag(number, kind)}
			_, _, tag := protowire.ConsumeTag(b)
			switch kind {
			case protowire.BytesType:
				want.Bytes, _ = protowire.ConsumeBytes(b[tag:])
			case protowire.VarintType:
				want.Value, _ = protowire.ConsumeVarint(b[tag:])
			}
			if d := cmp.Diff(want, got); d != "" || !bytes.Equal(rest, b[n:]) || got.Number() != number {
				t.Fatalf("Next(%x), rest %x (-want +got):\n%s", b, rest, d)
			}
			b = rest
		}
	})
}

func TestEachGivesWhatHasALength(t *testing.T) {
	message := []byte{0x0a, 1, 'a', 0x10, 2, 0x1a, 1, 'c', 0x0a, 0}
	var got []string
	read := func(n protowire.Number, b []byte) bool {
		got = append(got, string(rune('0'+n))+string(b))
		return true
	}
	if !wire.Each(message, read) || !slices.Equal(got, []string{"1a", "3c", "1"}) {
		t.Errorf("Each gave %q", got)
	}
	if wire.Each(append(message, 0x0a, 9), read) {
		t.Error("Each read a message that is cut off")
	}
	if wire.Each(message, func(n protowire.Number, _ []byte) bool { return n == 1 }) {
		t.Error("Each went on after a field was refused")
	}
}

func TestText(t *testing.T) {
	var s string
	if b := []byte("tö"); !wire.Text(b, &s) || s != "tö" {
		t.Errorf("Text(%q) = %q", b, s)
	}
	if b := []byte("\xff"); wire.Text(b, &s) {
		t.Errorf("Text(%q) is text", b)
	}
}

// TestAppends writes messages whose lengths take one byte, two and three.
func TestAppends(t *testing.T) {
	for _, size := range []int{0, 1, 120, 127, 128, 16_380, 16_384, 100_000} {
		want := &apipb.Api{
			Name: strings.Repeat("n", size), Methods: []*apipb.Method{{Name: strings.Repeat("m", size), RequestStreaming: true}, {}}, Syntax: 1,
		}
		b := wire.AppendText([]byte("before"), 1, want.Name)
		for _, m := range want.Methods {
			var at int
			b, at = wire.Begin(b, 2)
			b = wire.AppendText(b, 1, []byte(m.Name))
			streaming := uint64(0)
			if m.RequestStreaming {
				streaming = 1
			}
			b = wire.AppendNumber(b, 3, streaming)
			b = wire.End(b, at)
		}
		b = wire.AppendNumber(b, 7, uint64(want.Syntax))
		var got apipb.Api
		rest, ok := bytes.CutPrefix(b, []byte("before"))
		if err := proto.Unmarshal(rest, &got); err != nil || !ok || !proto.Equal(want, &got) {
			t.Errorf("a message with texts of %d bytes reads otherwise than it was written: %v", size, err)
		}
	}
}
