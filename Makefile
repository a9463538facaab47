# The commands a person types. Each installs what it lacks by name (apt, as root or with sudo) and says so; nothing here
# downloads a script, starts a service or hides what a command prints. The work itself is cargo's and `cargo xtask`'s.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test kube soak bench build check lint deny need-cargo

export PATH := $(PATH):$(HOME)/.cargo/bin
CARGO ?= cargo
NEED := ./xtask/need.sh
# STAY=1 leaves the demo's mesh running and prints what to try.
STAY ?= 0
# What `make bench` measures and how, such as BENCH="--quick bulk cross-node"; everything when empty.
BENCH ?=
# Levels of `make test`, such as LEVELS="unit pipeline"; all of them when empty.
LEVELS ?=

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  options: make demo STAY=1    make test LEVELS=\"unit pipeline\"    make bench BENCH=\"--quick bulk\""

build: need-cargo ## release programs in target/release
	$(CARGO) build --release --workspace --bins --locked

demo: need-cargo ## a two-node mesh on this machine, shown step by step with evidence
	$(NEED) demo
	$(MAKE) --no-print-directory build
	target/release/ambit demo $(if $(filter-out 0 no false,$(STAY)),--keep)

test: need-cargo ## formatting, lints, tidy and every level of test this machine can run
	$(NEED) --lenient test
	$(CARGO) xtask test $(LEVELS)

kube: ## the Kubernetes control plane of the tests and of `ambit lab up --source kube`, in target/kube
	$(NEED) kube

soak: need-cargo ## the rows that need minutes, in full
	$(NEED) test
	$(CARGO) xtask test --soak

bench: need-cargo ## against no mesh, HAProxy and Envoy, in the lab's topology
	$(NEED) bench
	$(MAKE) --no-print-directory build
	$(CARGO) bench --locked -p ambit-benches -- $(BENCH)

check: need-cargo ## formatting, lints, tidy and documentation; no test run
	$(CARGO) xtask check

lint: need-cargo ## clippy with warnings denied
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

deny: need-cargo ## licences, bans, sources and advisories of every dependency
	@if ! $(CARGO) deny --version >/dev/null 2>&1; then \
		echo "cargo-deny is not installed; installing it with: $(CARGO) install cargo-deny --locked"; \
		$(CARGO) install cargo-deny --locked; \
	fi
	$(CARGO) deny check licenses bans sources
	@if $(CARGO) deny fetch db; then \
		echo "$(CARGO) deny check advisories"; \
		$(CARGO) deny check advisories; \
	else \
		echo "deny: advisories NOT CHECKED: their database could not be fetched, see above"; \
	fi

need-cargo:
	@if ! command -v $(CARGO) >/dev/null; then \
		echo "make: $(CARGO) was not found on PATH or in ~/.cargo/bin." >&2; \
		echo "      Install Rust $$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml) or newer with rustup (https://rustup.rs), then run make again." >&2; \
		exit 69; \
	fi
	@$(NEED) build
