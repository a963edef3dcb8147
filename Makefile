# Everything a developer runs. Needed: cargo (Rust 1.95), go (1.26), java (17), mvn; no containers.
.DEFAULT_GOAL := help
.PHONY: help up down status logs demo check check-rust check-dev deny test cluster-test model fault-test soak bench image release-check clean

# Tests that need no servers: all of them but these.
online_tests := tests/scenarios.rs tests/faults.rs tests/cluster.rs
offline_tests := $(patsubst tests/%.rs,--test %,$(filter-out $(online_tests),$(wildcard tests/*.rs)))

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

up: ## start the servers, install the chart, run the operator
	cargo build
	dev/dev up $(if $(filter command line,$(origin CONTEXT)),--context "$(CONTEXT)")

down: ## stop all of it; the data stays for the next up
	dev/dev down

status: ## what runs, where, since when
	@dev/dev status

logs: ## where the logs are; dev/dev logs NAME shows one
	@dev/dev logs

demo: up ## the story of one request on the real servers; CONTEXT=kind-kind tells it on a cluster of yours
	@dev/dev demo

check: check-rust check-dev ## format, lints, documentation and the tests that need no servers

check-rust:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items
	cargo test --lib --bins $(offline_tests)

check-dev:
	@unformatted=$$(gofmt -l dev release) && test -z "$$unformatted" || { echo "run gofmt -w on $$unformatted"; exit 1; }
	cd dev && go vet ./... && go test ./...
	cd dev/schemas && go vet ./...
	cd release && go vet ./... && go test ./...

deny: ## licences, sources and banned crates of what we depend on; installs cargo-deny the first time (minutes)
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny --version 0.20.2
	cargo deny --log-level error check bans licenses sources

test: check ## check, then the scenarios and some of the fault tests on a stack of their own, and one test with Pods
	dev/scenarios
	dev/cluster words_of_the_readme

cluster-test: ## installed with Helm in Pods on a node of its own, with the image that is released; needs root
	release/image amd64
	HALLPASS_MUST=1 HALLPASS_IMAGE=target/image/amd64 dev/cluster

# Only our own code is compiled anew for it: what it depends on is as in every other test.
model: ## explore the protocol in all its small worlds (many minutes); HALLPASS_MODEL=WORDS explores those with the words in their name
	cargo test --config 'profile.dev.package.hallpass.opt-level=3' --test model deep -- --ignored --nocapture

fault-test: ## every fault at every call of a life: hours. HALLPASS_FAULT=… tries those with that in their name
	cargo build
	cargo test --test faults --no-run
	dev/with-stack cargo test --test faults -- --ignored --nocapture any_point

soak: ## many short requests with random faults, for HALLPASS_SOAK_MINUTES (10)
	cargo build
	cargo test --test faults --no-run
	dev/with-stack cargo test --test faults -- --ignored --nocapture many_short

bench: ## how fast it is beside bare Keycloak: an hour and more; BENCH=WORDS runs those with the words in their names
	cargo build --release
	cargo bench --profile measuring --bench hallpass --no-run
	HALLPASS_BIN="$${CARGO_TARGET_DIR:-target}/release/hallpass" dev/with-stack cargo bench --profile measuring --bench hallpass -- $(BENCH)

image: ## the container image, as an OCI layout in target/image/amd64
	release/image amd64

release-check: ## what a release does and needs no network: twice the same image, static, for each architecture that can be built here
	release/check

clean: ## stop and remove the stacks and what cargo built; built servers stay in ~/.cache/hallpass-dev
	dev/dev down --clean
	HALLPASS_DEV_STATE="$(CURDIR)/.dev-test" dev/dev down --clean
	HALLPASS_DEV_STATE="$(CURDIR)/.dev-node" dev/dev down --clean
	cargo clean
