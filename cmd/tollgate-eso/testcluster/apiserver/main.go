//go:build apiserver

// Command apiserver is Kubernetes' own kube-apiserver, built from its Go
// module so that the tests of the companion need no download but modules.
package main

import (
	"os"

	_ "time/tzdata"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() {
	os.Exit(cli.Run(app.NewAPIServerCommand()))
}
