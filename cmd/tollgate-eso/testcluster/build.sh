#!/usr/bin/env bash
# build.sh DIR [kube-apiserver|operator]: builds what the tests of the companion run beside it into DIR, once per version.
# Each takes minutes on two cores, so both may run at the same time and are kept.
set -euo pipefail
mkdir -p "$1"
tools=$(cd "$1" && pwd)
cd "$(dirname "$0")"

# kept PROGRAM VERSION: whether DIR has that build already.
kept() { test -x "$tools/$1-$2/$1"; }

# put PROGRAM VERSION FILE: keeps a build, whole or not at all.
put() {
	mkdir -p "$tools/$1-$2"
	mv "$3" "$tools/$1-$2/$1"
	ln -sfn "$1-$2" "$tools/$1"
}

kube_apiserver() {
	local version
	version=$(sed -n 's|^.*k8s.io/kubernetes \(v[^ ]*\)$|\1|p' apiserver/go.mod)
	kept kube-apiserver "$version" && return
	local set=k8s.io/component-base/version
	local minor=${version#v1.}
	(cd apiserver && go build -tags apiserver -trimpath -o "$tools/kube-apiserver.new" \
		-ldflags "-s -w -X $set.gitVersion=$version -X $set.gitMajor=1 -X $set.gitMinor=${minor%%.*}" .)
	put kube-apiserver "$version" "$tools/kube-apiserver.new"
}

# The operator's packages register forty providers and their clients, which take
# ten times as long to build. A copy registers one.
operator() {
	local version module copy
	version=$(sed -n 's|^.*github.com/external-secrets/external-secrets \(v[^ ]*\)$|\1|p' operator/go.mod)
	kept operator "$version" && return
	module=$(cd operator && go mod download -json "github.com/external-secrets/external-secrets@$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
	copy=$tools/operator.src
	rm -rf "$copy"
	cp -R "$module" "$copy"
	chmod -R u+w "$copy"
	cp operator/providers.go.txt "$copy/pkg/provider/register/register.go"
	cp operator/generators.go.txt "$copy/pkg/generator/register/register.go"
	cp operator/go.sum "$tools/operator.sum"
	{ cat operator/go.mod; echo "replace github.com/external-secrets/external-secrets => $copy"; } >"$tools/operator.mod"
	(cd operator && go build -modfile "$tools/operator.mod" -tags operator -trimpath -ldflags '-s -w' -o "$tools/operator.new" .)
	put operator "$version" "$tools/operator.new"
	rm -rf "$copy" "$tools/operator.mod" "$tools/operator.sum"
}

# The definitions of the objects that the operator of that version serves.
crds() {
	local version module
	version=$(sed -n 's|^.*github.com/external-secrets/external-secrets \(v[^ ]*\)$|\1|p' operator/go.mod)
	test -d "$tools/operator-crds-$version" && return
	module=$(cd operator && go mod download -json "github.com/external-secrets/external-secrets@$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
	rm -rf "$tools/operator-crds.new"
	mkdir "$tools/operator-crds.new"
	cp "$module"/config/crds/bases/*.yaml "$tools/operator-crds.new/"
	mv "$tools/operator-crds.new" "$tools/operator-crds-$version"
}

case ${2:-both} in
kube-apiserver)
	crds
	kube_apiserver
	;;
operator) operator ;;
both)
	crds
	kube_apiserver
	operator
	;;
*)
	echo "usage: build.sh DIR [kube-apiserver|operator]" >&2
	exit 2
	;;
esac
