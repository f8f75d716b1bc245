package test

import (
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"sigs.k8s.io/yaml"
)

// project reads a compose file as `docker compose` does, by its own code: held
// to its schema, with the variables of .env beside it.
func project(t *testing.T, file string) (*types.Project, error) {
	t.Helper()
	o, err := cli.NewProjectOptions([]string{file}, cli.WithWorkingDirectory("../compose"), cli.WithEnvFiles("../compose/.env"), cli.WithDotEnv)
	if err != nil {
		t.Fatal(err)
	}
	return o.LoadProject(t.Context())
}

func TestCompose(t *testing.T) {
	p, err := project(t, "../compose/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := p.ServiceNames(), []string{"envoy", "grafana", "prometheus", "tollgate", "upstream"}; !slices.Equal(got, want) {
		t.Errorf("services %v, want %v", got, want)
	}
	for name, s := range p.Services {
		if s.Image == "" || !s.ReadOnly || !slices.Contains(s.CapDrop, "ALL") {
			t.Errorf("%s: image %q, read-only %v, without %v: want it confined", name, s.Image, s.ReadOnly, s.CapDrop)
		}
	}
	if b := p.Services["tollgate"].Build; b == nil || b.Dockerfile != "deploy/Dockerfile" || *b.Args["GO_IMAGE"] == "" {
		t.Errorf("tollgate is built by %+v", b)
	}
}

func TestComposeRefuses(t *testing.T) {
	text, err := os.ReadFile("../compose/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for old, typo := range map[string]string{"healthcheck:": "healthchek:", "read_only: true": "read_only: [yes]", "condition: service_healthy": "condition: healthy", "${ENVOY_IMAGE}": "${ENVOY_IMAGE?}"} {
		file := filepath.Join(t.TempDir(), "compose.yaml")
		changed := strings.ReplaceAll(string(text), old, typo)
		if typo == "${ENVOY_IMAGE?}" {
			changed = strings.ReplaceAll(changed, "ENVOY_IMAGE", "ENVOI_IMAGE")
		}
		if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := project(t, file); err == nil {
			t.Errorf("%s is taken", typo)
		}
	}
}

// TestGrafana: what is provisioned is found where compose puts it.
func TestGrafana(t *testing.T) {
	p, err := project(t, "../compose/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	mounted := map[string]string{} // target to source
	for _, v := range p.Services["grafana"].Volumes {
		mounted[v.Target] = v.Source
	}
	var dashboards struct {
		APIVersion int `json:"apiVersion"`
		Providers  []struct {
			Name    string `json:"name"`
			Type    string `json:"type"`
			Options struct {
				Path string `json:"path"`
			} `json:"options"`
		} `json:"providers"`
	}
	var sources struct {
		APIVersion  int `json:"apiVersion"`
		Datasources []struct {
			Name      string `json:"name"`
			Type      string `json:"type"`
			URL       string `json:"url"`
			IsDefault bool   `json:"isDefault"`
			JSONData  struct {
				TimeInterval string `json:"timeInterval"`
			} `json:"jsonData"`
		} `json:"datasources"`
	}
	for kind, into := range map[string]any{"dashboards/tollgate.yaml": &dashboards, "datasources/prometheus.yaml": &sources} {
		folder, name := path.Split(kind)
		data, err := os.ReadFile(filepath.Join(mounted["/etc/grafana/provisioning/"+path.Clean(folder)], name))
		if err == nil {
			err = yaml.UnmarshalStrict(data, into)
		}
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
	}
	if len(dashboards.Providers) != 1 || dashboards.Providers[0].Type != "file" {
		t.Fatalf("dashboards: %+v", dashboards)
	}
	if _, err := os.Stat(filepath.Join(mounted[dashboards.Providers[0].Options.Path], "tollgate.json")); err != nil {
		t.Errorf("the dashboard is not where Grafana looks: %v", err)
	}
	if len(sources.Datasources) != 1 || sources.Datasources[0].Type != "prometheus" || !sources.Datasources[0].IsDefault {
		t.Fatalf("sources: %+v", sources)
	}
	u, err := url.Parse(sources.Datasources[0].URL)
	if err != nil {
		t.Fatal(err)
	}
	if _, there := p.Services[u.Hostname()]; !there {
		t.Errorf("Grafana asks %s, which compose does not run", u)
	}
}
