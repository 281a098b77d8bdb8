# The few commands people type. Each installs what it needs, then calls cargo or a script that can also be
# called by hand.

FLEET ?= clusters
PORT ?=
ARGS ?=

TRIPLE := x86_64-unknown-linux-musl
BIN := $(or $(CARGO_TARGET_DIR),target)/$(TRIPLE)/debug

.DEFAULT_GOAL := help
.PHONY: help demo build deb test e2e bench bench-update lint audit

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: build ## run a fleet on this machine; FLEET=seed, PORT=9000, ARGS='...'
	@exec $(BIN)/bootstrap launch --local $(FLEET) $(if $(PORT),--port $(PORT)) $(ARGS)

build: ## build both programs, statically linked
	@tests/bin/setup build
	@cargo build --workspace --locked

deb: ## make the Debian packages of both programs, in dist/
	@tests/bin/setup deb
	@packaging/make-deb

test: ## run the tests; ARGS='-E ...' goes to cargo nextest
	@tests/bin/setup test
	@tests/bin/run-tests test $(ARGS)

e2e: ## run the long tests: packages, booted Debians, whole sweeps; ARGS too
	@tests/bin/setup e2e
	@tests/bin/run-tests e2e $(ARGS)
	@$(if $(TESTS_DIST),,packaging/check-reproducible)

bench: ## measure the agent beside nginx, Redis and others; ARGS='--row get-64', '--list'
	@tests/bin/setup bench
	@tests/bench/run $(ARGS)

bench-update: ## the same, then write docs/reference/benchmarks.md; wants a quiet machine
	@tests/bin/setup bench
	@tests/bench/run --update $(ARGS)

lint: ## check format, clippy, dependencies, shell scripts, the tree, words
	@tests/bin/setup lint
	@tests/bin/lint

audit: ## look up known vulnerabilities (fetches a public database)
	@tests/bin/setup lint
	@"$$(tests/bin/tool-path cargo-deny)" check advisories
