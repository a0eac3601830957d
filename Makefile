# Baton's tasks. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: control-plane
control-plane: ## Build (once, cached) the real control plane: etcd, kube-apiserver, …, kubectl, kwok, helm
	@tests/control-plane/build.sh

.PHONY: unit
unit: ## Unit and property tests of the library: no cluster, seconds
	$(CARGO) test --lib --all-features

TESTBED := $(or $(CARGO_TARGET_DIR),target)/debug/baton-testbed
# process[:N] runs Pods as local processes, kwok:N simulates nodes; or both: process,kwok:50
NODES ?= process
CLUSTER ?= target/cluster

.PHONY: testbed
testbed:
	@$(CARGO) build --quiet --features testbed --bin baton-testbed

.PHONY: cluster-up
cluster-up: control-plane testbed ## Start a real cluster without root (NODES=process,kwok:50) and print its KUBECONFIG
	@$(TESTBED) cluster up --dir $(CLUSTER) --nodes $(NODES)

.PHONY: cluster-down
cluster-down: testbed ## End the cluster and everything in it
	@$(TESTBED) cluster down --dir $(CLUSTER)
