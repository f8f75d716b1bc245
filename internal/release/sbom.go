package main

import (
	"debug/buildinfo"
	"encoding/json"
	"strings"
)

const sbomSuffix = ".cdx.json"

// bom is a CycloneDX 1.6 bill of materials, as far as it is used here. It has
// neither time nor serial number: the same program has the same bill.
type bom struct {
	Format      string      `json:"bomFormat"`
	SpecVersion string      `json:"specVersion"`
	Version     int         `json:"version"`
	Metadata    metadata    `json:"metadata"`
	Components  []component `json:"components"`
}

type metadata struct {
	Component component `json:"component"`
}

type component struct {
	Type    string `json:"type"`
	Ref     string `json:"bom-ref"`
	Name    string `json:"name"`
	Version string `json:"version"`
	PURL    string `json:"purl"`
}

// sbom lists what the linker put into a program: itself, the modules, and Go's
// standard library.
func sbom(path, version string) ([]byte, error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return nil, err
	}
	b := bom{Format: "CycloneDX", SpecVersion: "1.6", Version: 1, Metadata: metadata{newComponent("application", info.Main.Path, version)}}
	b.Components = append(b.Components, newComponent("library", "stdlib", strings.TrimPrefix(info.GoVersion, "go")))
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		b.Components = append(b.Components, newComponent("library", m.Path, m.Version))
	}
	text, err := json.MarshalIndent(b, "", " ")
	return append(text, '\n'), err
}

// newComponent names a Go module as package-url does (type golang).
func newComponent(kind, path, version string) component {
	purl := "pkg:golang/" + path + "@" + strings.ReplaceAll(version, "+", "%2B")
	return component{Type: kind, Ref: purl, Name: path, Version: version, PURL: purl}
}
