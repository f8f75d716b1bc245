package extauthz_test

import (
	"testing"

	"github.com/tollgate-dev/tollgate/extauthz"
)

func TestNormalPath(t *testing.T) {
	tests := []struct{ path, want string }{
		{"/v1/items", "/v1/items"},
		{"/v1/items?key=%2f", "/v1/items"},
		{"/v1/items#top", "/v1/items"},
		{"/V1/Items", "/V1/Items"},
		{"//v1///items", "/v1/items"},
		{"/v1/./items", "/v1/items"},
		{"/x/../v1/items", "/v1/items"},
		{"/x/%2e%2E/v1/items", "/v1/items"},
		{"/../../v1", "/v1"},
		{"/v1/items/..", "/v1/"},
		{"/v1/items/.", "/v1/items/"},
		{"/v1/items/", "/v1/items/"},
		{"/v1/it%65ms", "/v1/items"},
		{"/%7euser", "/~user"},
		{"/v1;a=b/items;c", "/v1/items"},
		{"/v1/..;/items", "/items"},
		{"/v1/;x", "/v1/"},
		{"/v1%2fitems", "/v1%2Fitems"},
		{"/v1%3bx", "/v1%3Bx"},
		{"/%252e%252e/", "/%252e%252e/"},
		{"/100%", "/100%25"},
		{"/%%34%31", "/%2541"},
		{"/caf\u00e9", "/caf%C3%A9"},
		{"/a b\r\n", "/a%20b%0D%0A"},
		{"/...", "/..."},
		{"/.hidden", "/.hidden"},
		{"", "/"},
		{"?q", "/"},
		{"*", "/*"},
	}
	for _, tt := range tests {
		if got := extauthz.NormalPath(tt.path); got != tt.want {
			t.Errorf("NormalPath(%q) = %q, want %q", tt.path, got, tt.want)
		}
	}
}

func TestNormalPathAllocatesNothing(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { extauthz.NormalPath("/v1/envs/DEV/apps/a.b/clusters?x=1") }); n != 0 {
		t.Errorf("a normal path took %v allocations, want 0", n)
	}
}

func FuzzNormalPath(f *testing.F) {
	for _, seed := range []string{"/", "//a/../%2e", "/;x/%%34%31", "/%2525;", "a/.", "/\xff%c3", "/a/..;/b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		once := extauthz.NormalPath(path)
		if twice := extauthz.NormalPath(once); twice != once {
			t.Errorf("NormalPath(%q) = %q, and of that %q", path, once, twice)
		}
		if once[0] != '/' {
			t.Errorf("NormalPath(%q) = %q, want a leading slash", path, once)
		}
		for i := range len(once) {
			if c := once[i]; c <= ' ' || c > '~' || c == ';' || c == '?' {
				t.Errorf("NormalPath(%q) = %q, which holds %q", path, once, c)
			}
		}
	})
}
