# Baton's tasks. `make help` lists those that a contributor needs, `make help-all` all of them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo

# One set of features everywhere, so that one build serves every target.
cargo_flags := --locked --all-features
version := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml | head -1)

deny_version := 0.20.2
tools := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/baton/tools
deny := $(tools)/cargo-deny-$(deny_version)/bin/cargo-deny
ziglang_version := 0.15.2
ziglang := $(tools)/ziglang-$(ziglang_version)
cyclonedx_version := 0.5.9
cyclonedx := $(tools)/cargo-cyclonedx-$(cyclonedx_version)/bin/cargo-cyclonedx

# A main target has three #, any other two.
.PHONY: help
help:
	@awk -F ':.*### ' '/^[a-z0-9-]+:.*### / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  make help-all       All targets: simulation, model, crash tests, real nodes, benchmarks, images"

.PHONY: help-all
help-all:
	@awk -F ':.*##+ ' '/^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

## What must hold

.PHONY: test
test: ### Everything that must hold, as CI runs it; ends with the line "N passed, N failed"
	@tests/all.sh

.PHONY: unit
unit: ### Unit and property tests of the library: no cluster, seconds
	$(CARGO) test $(cargo_flags) --lib

# How many random seeds, or which one to print
SEEDS ?= 200
# Each history has a thread, and a heap, of its own: pages go from one to the next instead of back to the kernel.
.PHONY: simulate
simulate: ## Run operators and agents through whole simulated histories: SEEDS=n random ones (LISTENERS=1, PINS=1, IN_PLACE=1, RESOURCES=1, STRATEGIES=1, HOT_RELOAD=1, PAUSES=1, KEEP_FAILED=1, HOOKS=1: with those), or SEED=k to print one
	MIMALLOC_PURGE_DELAY=-1 SEEDS=$(SEEDS) $(foreach name,SEED LISTENERS PINS IN_PLACE RESOURCES STRATEGIES HOT_RELOAD PAUSES KEEP_FAILED HOOKS,$(if $($(name)),$(name)=$($(name)))) $(CARGO) test $(cargo_flags) --profile simulate --test it -- \
	  --nocapture simulate::random_seeds_break_no_promise

# Steps, and about how many states are made for each configuration (45 million need 2.6 GB)
DEPTH ?= 99
STATES ?= 10000000
.PHONY: model
model: ## Search the hand-off of listeners for two owners, deeper than the unit tests do (DEPTH=14 STATES=50000000)
	@$(CARGO) test $(cargo_flags) --profile simulate --test it --no-run
	@DEPTH=$(DEPTH) STATES=$(STATES) $(CARGO) test $(cargo_flags) --profile simulate --test it -- \
	  --nocapture --test-threads 1 model::protocol

.PHONY: mutants
mutants: ## Tests of the tests: switch on known bugs one by one, and show which test finds each
	@tests/mutants.sh

# POINT=17:committed replays one (several: POINT='17:committed 20:before'); SAMPLE=12 takes so many by SEED.
.PHONY: crash
crash: control-plane ## Kill the operator at every write on a real cluster: the same end each time (POINT=17:committed, SAMPLE=12 SEED=7)
	$(CARGO) build $(cargo_flags) --bins --examples
	@$(TESTBED) crash $(addprefix --point ,$(POINT)) $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED))

.PHONY: e2e
e2e: ## Baton on real kubelets with containerd 1.6 and 2, as root on Debian (IMAGE_PROFILE=image: images as released; ROUNDS=20: what depends on the moment so often)
	@tests/e2e.sh

.PHONY: check
check: check-format check-rules check-lints check-dependencies ### Format, lints, rules of the repository, generated files fresh, licences

.PHONY: check-format
check-format:
	$(CARGO) fmt --check

.PHONY: check-lints
check-lints:
	$(CARGO) clippy $(cargo_flags) --all-targets -- -D warnings

# Layers, length of files, requirement ids …, and that generated files are fresh.
.PHONY: check-rules
check-rules:
	$(CARGO) test $(cargo_flags) --test it -- architecture:: generated::

.PHONY: check-dependencies
check-dependencies:
	@deny=$(deny); [[ -x $$deny ]] || deny=$$(command -v cargo-deny) || \
	  { echo "cargo-deny $(deny_version) is missing: make tools" >&2; exit 1; }; \
	echo cargo deny check licenses bans sources; \
	"$$deny" --locked --all-features check --hide-inclusion-graph licenses bans sources

## Making things

.PHONY: tools
tools: $(deny) ## Install what `make check` needs besides Rust (cargo-deny), once, into the cache

# Unoptimised: it runs for two seconds, and optimising it would take minutes.
$(deny):
	env -u CARGO_TARGET_DIR CARGO_PROFILE_DEV_DEBUG=false $(CARGO) install --locked --debug --no-default-features \
	  --root $(tools)/cargo-deny-$(deny_version) cargo-deny@$(deny_version)

.PHONY: control-plane
control-plane: ## Build (once, cached) the real control plane: etcd, kube-apiserver, …, kubectl, kwok, helm
	@tests/control-plane/build.sh

.PHONY: e2e-programs
e2e-programs: ## Build and fetch (once, cached) what real nodes need: containerd 1.6 and 2, runc, network plugins
	@tests/e2e.sh prepare

.PHONY: generate
generate: ### Write crds/, config/ and charts/baton anew from the code
	$(CARGO) run $(cargo_flags) --quiet --bin baton-operator -- generate

## Images

# IMAGES_AS is what stands before baton-operator and baton-agent in their names; IMAGE_SOURCE goes into a label.
IMAGES_AS ?= example.local
ARCHITECTURES ?= amd64 arm64
.PHONY: image
image: testbed $(ziglang)/ziglang/zig $(cyclonedx) ## Make OCI images of operator and agent, as files with an SBOM each: no container engine (docs/images.md)
	@IMAGES_AS="$(IMAGES_AS)" IMAGE_SOURCE="$(IMAGE_SOURCE)" ARCHITECTURES="$(ARCHITECTURES)" TESTBED=$(TESTBED) \
	  PATH="$(ziglang)/ziglang:$(dir $(cyclonedx)):$$PATH" tests/testbed/image/build.sh

# A C compiler for each architecture, of one version on every machine: the C code in ring and zstd needs it.
$(ziglang)/ziglang/zig:
	@python3 -m pip --version >/dev/null || { echo "python3 with pip is missing: package python3-pip" >&2; exit 1; }
	python3 -m pip install --quiet --no-deps --target $(ziglang) ziglang==$(ziglang_version)

$(cyclonedx):
	env -u CARGO_TARGET_DIR CARGO_PROFILE_DEV_DEBUG=false $(CARGO) install --locked --debug \
	  --root $(tools)/cargo-cyclonedx-$(cyclonedx_version) cargo-cyclonedx@$(cyclonedx_version)

## A cluster to try things in

built := $(or $(CARGO_TARGET_DIR),target)/debug
TESTBED := $(built)/baton-testbed
# process[:N] runs Pods as local processes, kwok:N simulates nodes, kubelet[:N] has real ones (as root); or several: process,kwok:50
NODES ?= process
# Of real nodes: 1.6 or 2, or of each: 1.6,2
CONTAINERD ?= 2
CLUSTER ?= target/cluster
# example.local/NAME:TAG is the folder NAME/TAG of this one
IMAGES ?= $(CLUSTER)/images

# With an example, as everywhere: what only tests need has features of its own, and without it all would be built twice.
.PHONY: testbed
testbed:
	@$(CARGO) build $(cargo_flags) --bins --examples

.PHONY: cluster-up
cluster-up: control-plane testbed $(if $(findstring kubelet,$(NODES)),e2e-programs) ### Start a real cluster without root (NODES=process,kwok:50; as root: NODES=kubelet:2) and print its KUBECONFIG
	@$(TESTBED) cluster up --dir $(CLUSTER) --nodes $(NODES) --images $(IMAGES) --containerd $(CONTAINERD)

.PHONY: images
images: ## Put operator, agent and the example web 1.0, 1.1, 1.2-broken where the cluster's process node finds its images
	@$(CARGO) build $(cargo_flags) --bins --examples
	@for name in baton-operator baton-agent; do install -D $(built)/$$name $(IMAGES)/$$name/$(version)/$$name; done
	@for tag in 1.0 1.1; do install -D $(built)/examples/web $(IMAGES)/web/$$tag/web; done
	@install -D examples/web/broken.sh $(IMAGES)/web/1.2-broken/web
	@ls -d $(IMAGES)/*/*

# What is built serves: nothing is compiled before a cluster ends.
$(TESTBED):
	@$(MAKE) --no-print-directory testbed

.PHONY: cluster-down
cluster-down: $(TESTBED) ### End the cluster and everything in it; PURGE=1 removes its images and logs too
	@$(TESTBED) cluster down --dir $(CLUSTER) $(if $(PURGE),--purge)

## The main job, end to end

# KUBECONFIG counts only where it is given to make itself: one that is merely exported may be a cluster that matters.
demo_kubeconfig := $(if $(filter command line,$(origin KUBECONFIG)),$(KUBECONFIG))

.PHONY: demo
demo: control-plane ### Roll out, roll back (all, one), kill, scale and switch real processes under load (KEEP=1: leave it running)
	$(CARGO) build $(cargo_flags) --bins --examples
	@$(TESTBED) demo $(if $(KEEP),--keep) $(if $(demo_kubeconfig),--kubeconfig $(demo_kubeconfig))

## What it costs

released := $(or $(CARGO_TARGET_DIR),target)/release
PODS ?= 1000
READY_AFTER ?= 0,2
REPEAT ?= 1

.PHONY: bench-programs
bench-programs: control-plane
	$(CARGO) build --locked --release --bin baton-operator
	$(CARGO) build $(cargo_flags) --release --bin baton-testbed

.PHONY: bench
bench: bench-programs ## Measure a roll beside Deployment and StatefulSet, into docs/performance.md (PODS=1000,5000 REPEAT=5)
	$(released)/baton-testbed bench roll --pods $(PODS) --ready-after $(READY_AFTER) --repeat $(REPEAT) \
	  --page docs/performance.md

.PHONY: bench-failover
bench-failover: bench-programs ## Measure the pause after kill -9 of the controller, into docs/performance.md
	$(released)/baton-testbed bench failover --page docs/performance.md

# Go modules are the only thing that this downloads.
election := target/peers/election
.PHONY: $(election)
$(election):
	cd tests/peers/election && CGO_ENABLED=0 GOTOOLCHAIN=local GOWORK=off go build -o $(CURDIR)/$@ .

.PHONY: bench-listeners
bench-listeners: bench-programs $(election) ## Measure moves and losses of listeners beside client-go's election, into docs/performance.md
	$(released)/baton-testbed bench listeners --election $(election) --page docs/performance.md

OBJECTS ?= 500
.PHONY: bench-tenants
bench-tenants: bench-programs ## Measure what one namespace's noise costs another, into docs/performance.md (OBJECTS=1000)
	$(released)/baton-testbed bench tenant --objects $(OBJECTS) --page docs/performance.md

.PHONY: bench-instructions
bench-instructions: bench-programs ## Count the instructions of one look at a Rollout (needs valgrind), into docs/performance.md
	$(released)/baton-testbed bench instructions --page docs/performance.md
