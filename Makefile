# The few commands people type. Each calls cargo or a script that can also be called by hand.

FLEET ?= clusters
PORT ?=
ARGS ?=

TRIPLE := x86_64-unknown-linux-musl
BIN := $(or $(CARGO_TARGET_DIR),target)/$(TRIPLE)/debug

.DEFAULT_GOAL := help
.PHONY: help demo build deb test e2e lint audit

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: build ## run a fleet on this machine; FLEET=clusters or seed, PORT=8080, ARGS='...'
	@exec $(BIN)/bootstrap launch --local $(FLEET) $(if $(PORT),--port $(PORT)) $(ARGS)

build: ## build both programs, statically linked, after installing what that needs
	@tests/bin/setup build
	@cargo build --workspace --locked

deb: ## make the Debian packages of both programs in dist/, after installing what that needs
	@tests/bin/setup deb
	@packaging/make-deb

test: ## run every test but those of e2e, after installing what they need; ARGS='-E ...' goes to nextest
	@tests/bin/setup test deb
	@tests/bin/run-tests $(ARGS)

e2e: ## run the story of nine machines and the tests in virtual machines, and build the packages twice; ARGS as for test
	@tests/bin/setup e2e deb
	@tests/bin/run-tests --profile e2e $(ARGS)
	@$(if $(TESTS_DIST),,packaging/check-reproducible)

lint: ## check format, clippy, dependencies, shell scripts, and the shape of the tree
	@tests/bin/setup lint
	@tests/bin/lint

audit: ## look the dependencies up among known vulnerabilities (fetches a public database)
	@tests/bin/setup lint
	@"$$(tests/bin/tool-path cargo-deny)" check advisories
