package config_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tollgate-dev/tollgate/internal/config"
)

func TestRateLimitEnvironmentRedis(t *testing.T) {
	for _, c := range []struct {
		name string
		env  []string
		want *config.Redis
	}{
		{"nothing", nil, nil},
		{"one server", []string{"REDIS_SOCKET_TYPE=tcp", "REDIS_URL=redis:6379"}, &config.Redis{Addresses: []string{"redis:6379"}}},
		{"everything", []string{"REDIS_SOCKET_TYPE=TCP", "REDIS_TYPE=SINGLE", "REDIS_URL=redis:6379", "REDIS_AUTH=user:pa:ss", "REDIS_TLS=true", "CACHE_KEY_PREFIX=edge:"},
			&config.Redis{Addresses: []string{"redis:6379"}, Username: "user", Password: "pa:ss", Prefix: "edge:", TLS: new(config.RedisTLS)}},
		{"a password alone", []string{"REDIS_URL=redis:6379", "REDIS_AUTH=pass"}, &config.Redis{Addresses: []string{"redis:6379"}, Password: "pass"}},
		{"sentinels", []string{"REDIS_TYPE=sentinel", "REDIS_URL=mymaster,a:1, b:2"}, &config.Redis{Addresses: []string{"a:1", "b:2"}, SentinelMaster: "mymaster"}},
		{"a cluster", []string{"REDIS_TYPE=CLUSTER", "REDIS_URL=a:1,b:2,c:3"}, &config.Redis{Addresses: []string{"a:1", "b:2", "c:3"}}},
		{"a unix socket, which is not supported", []string{"REDIS_URL=/var/run/redis.sock"}, nil},
		{"memcache, which is not supported", []string{"BACKEND_TYPE=memcache", "REDIS_URL=redis:6379"}, nil},
	} {
		got := load(t, env(append(c.env, "CONFIG_TYPE=GRPC_XDS_SOTW")...)).Config.Cluster.Redis
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: Redis (-want +got):\n%s", c.name, diff)
		}
	}
	for want, vars := range map[string][]string{
		"REDIS_URL: want HOST:PORT, or for a unix socket a path that begins with /":                   {"REDIS_URL=redis://:hunter2@redis:6379"},
		"REDIS_URL: want MASTER,HOST:PORT,… of sentinels":                                             {"REDIS_URL=a:1", "REDIS_TYPE=sentinel"},
		"REDIS_URL: want one HOST:PORT, or REDIS_TYPE=cluster":                                        {"REDIS_URL=a:1,b:2"},
		`REDIS_TYPE: "cloud": want one of single, sentinel, cluster`:                                  {"REDIS_URL=a:1", "REDIS_TYPE=cloud"},
		`CACHE_KEY_PREFIX: "ä": want up to 64 letters, digits and . _ : / -`:                          {"REDIS_URL=a:1", "CACHE_KEY_PREFIX=ä"},
		"REDIS_TLS_CLIENT_CERT: want both REDIS_TLS_CLIENT_CERT and REDIS_TLS_CLIENT_KEY, or neither": {"REDIS_URL=a:1", "REDIS_TLS=true", "REDIS_TLS_CLIENT_CERT=c"},
		"REDIS_TLS: open /none: no such file or directory":                                            {"REDIS_URL=a:1", "REDIS_TLS=true", "REDIS_TLS_CACERT=/none"},
	} {
		if _, _, err := config.Load("", env(append(vars, "CONFIG_TYPE=GRPC_XDS_SOTW")...)); err == nil || err.Error() != want {
			t.Errorf("Load of %v = %v, want %s", vars, err, want)
		}
	}
}
