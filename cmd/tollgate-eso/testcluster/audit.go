package testcluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// auditPolicy has the API server write down what service accounts ask for.
const auditPolicy = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - {level: Metadata, userGroups: ["system:serviceaccounts"]}
  - {level: None}
`

func (c *Cluster) auditLog() string { return filepath.Join(c.Dir, "audit.log") }

// Asked is what a service account has asked of the API server: verbs and resources,
// as "patch external-secrets.io/secretstores/status", and whether that was allowed.
type Asked map[string]bool

// Asked returns what a user has asked for up to now.
func (c *Cluster) Asked(user string) (Asked, error) {
	log, err := os.ReadFile(c.auditLog())
	if err != nil {
		return nil, err
	}
	asked := Asked{}
	for line := range bytes.Lines(log) {
		var e struct {
			Verb        string
			User        struct{ Username string }
			ObjectRef   *struct{ APIGroup, Resource, Subresource string }
			Annotations map[string]string
		}
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // is being written
		}
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("audit: %w", err)
		}
		if e.User.Username != user || e.ObjectRef == nil {
			continue
		}
		what := e.Verb + " " + e.ObjectRef.APIGroup + "/" + e.ObjectRef.Resource
		if e.ObjectRef.Subresource != "" {
			what += "/" + e.ObjectRef.Subresource
		}
		asked[what] = e.Annotations["authorization.k8s.io/decision"] == "allow"
	}
	return asked, nil
}
