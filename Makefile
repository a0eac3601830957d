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
