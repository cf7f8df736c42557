# Everything a contributor needs, by name; `make help` lists it. What is more
# than a command or two is a chore of xtask/.

XTASK  := cargo xtask
RUN    := cargo run --quiet --package cdylib-tests --bin
TARGET := $(or $(CARGO_TARGET_DIR),target)

# Seconds for each fuzz target.
FUZZ_SECONDS ?= 30

.DEFAULT_GOAL := help
.PHONY: help check demo test modules bench dist matrix node-test driver-test fuzz linker

help: ## List these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 10

# What needs root has as_root in its name.
check: linker ## Format, lints and unit tests; needs neither root nor Slurm
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets -- -D warnings
	@if cargo nextest --version >/dev/null 2>&1; \
	then set -x; cargo nextest run --workspace --exclude cdylib-tests --lib --bins --test architecture -E 'not test(as_root)'; \
	else set -x; cargo test --quiet --workspace --exclude cdylib-tests --lib --bins --test architecture -- --skip as_root; fi

demo: linker ## Show a job on a simulated pair of p5.48xlarge under a real Slurm (a few minutes)
	@$(XTASK) setup --for demo
	@$(MAKE) --no-print-directory modules
	@$(RUN) demo

test: linker ## Format, lints, unit tests, and the tests on a real Slurm
	@$(XTASK) setup --for test
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	@$(MAKE) --no-print-directory modules
	cargo test --workspace --doc --quiet
	@if cargo nextest --version >/dev/null 2>&1; \
	then set -x; cargo nextest run --workspace; \
	else set -x; cargo test --workspace --tests --no-fail-fast; fi

# What the tests load into Slurm, where they look for it:
#   target/debug/libspank_efa.so          the plugin
#   target/inject/debug/libspank_efa.so   the same, able to panic in any hook
#   target/debug/efa-counter-reader       what the plugin starts, beside it
#   target/debug/slurm-efa-job            what slurmd runs before and after each job, beside it
#   target/debug/libpam_slurm_logout.so   the PAM module, and beside it its programs
#   target/inject/debug/libpam_slurm_logout.so   the same, able to panic in any phase
#   target/debug/libspank_gres.so         the plugin of shared GPUs
#   target/debug/libmock_nvml.so          NVML over a machine in a file
#   target/debug/examples/lib*.so         plugins, a PAM module and a libslurm made up for tests
modules:
	cargo build --quiet --package spank-efa --package slurm-efa-job
	cargo build --quiet --package efa-check --package slurm-efa
	cargo build --quiet --package pam-slurm-logout --package slurm-logoutd
	cargo build --quiet --package spank-gres --package gres-helper --package mock-nvml
	cargo build --quiet --package spank --package pam-stack --examples
	cargo build --quiet --package spank-efa --features panic-injection --target-dir $(TARGET)/inject
	cargo build --quiet --package pam-slurm-logout --features panic-injection --target-dir $(TARGET)/inject
	ln -sf $(abspath $(TARGET))/debug/efa-counter-reader $(abspath $(TARGET))/debug/slurm-efa-job $(TARGET)/inject/debug/

bench: linker ## Measure job steps, prolog and logins, each against its rivals, and preflight
	@$(XTASK) setup --for bench
	cargo build --quiet --release --package spank-efa --package slurm-efa-job --package slurm-efa
	cargo build --quiet --release --package efa-check --package gres-helper
	cargo build --quiet --release --package pam-slurm-logout --package slurm-logoutd --package spank-gres
	cargo build --quiet --package pam-slurm-logout --package slurm-logoutd --package mock-nvml
	@cargo run --quiet --release --package cdylib-tests --bin bench
	@cargo run --quiet --release --package efa-check --example bench
	@cargo run --quiet --release --package gres-helper --example bench
	@cargo run --quiet --release --package slurm-efa --example bench
	@cargo run --quiet --release --package slurm-logoutd --example bench

dist: linker ## Build what is shipped, for every distribution: packages, SBOM and hashes in target/dist/
	@$(XTASK) setup --for dist
	@$(XTASK) dist

matrix: dist ## Run those very files under every supported Slurm release (root; 1 GB in /var/cache/slurm-efa)
	@$(XTASK) setup --for matrix
	@$(XTASK) dist --inject --here
	@$(XTASK) roots
	@$(RUN) matrix
	SLURM_EFA_CASES=10000 cargo test --quiet --package cdylib-tests --test pam-slurm-logout stacks::the_rules
	cargo test --quiet --package xtask --test packages

# A part of it: make node-test ONLY=hugepages
node-test: linker ## Install the package on three virtual machines laid out as on HyperPod (root; QEMU without KVM)
	@$(XTASK) setup --for dist
	@$(XTASK) dist --here
	@$(XTASK) setup --for node-test
	@$(XTASK) roots machine
	cargo build --quiet --package mock-nvml
	cargo build --quiet --package cdylib-tests --bin hugemap
	@$(RUN) node-test -- $(if $(ONLY),--only $(ONLY))

# A part of it: make driver-test ONLY='dead admin queue'
driver-test: linker ## Fail, move data and run jobs on the kernel's own efa driver and emulated devices (root; QEMU without KVM)
	@$(XTASK) setup --for driver-test || exit 77
	@$(XTASK) roots driver || exit 77
	cargo build --quiet --release --package spank-efa --package slurm-efa-job --package efa-check
	cargo build --quiet --release --package slurm-efa --package efa-device
	@$(RUN) driver-test -- $(if $(ONLY),--only '$(ONLY)')

# cargo-fuzz wants a nightly compiler; RUSTC_BOOTSTRAP lets a stable one do.
fuzz: export RUSTC_BOOTSTRAP := 1
fuzz: linker ## Fuzz each parser and the emulated device for a while (FUZZ_SECONDS=30)
	@$(XTASK) setup --for fuzz
	@set -e; for target in $$(cargo fuzz list --fuzz-dir fuzz); do \
	    echo "== $$target"; \
	    mkdir -p "fuzz/corpus/$$target"; seeds="fuzz/seeds/$$target"; [ -d "$$seeds" ] || seeds=; \
	    cargo fuzz run --fuzz-dir fuzz "$$target" "fuzz/corpus/$$target" $$seeds -- -max_total_time=$(FUZZ_SECONDS); \
	done

# Rust alone cannot link: xtask, which installs the rest, needs a C linker first.
linker:
	@command -v cc >/dev/null || { \
	    if [ "$$(id -u)" -eq 0 ]; then xtask/install-packages gcc libc6-dev; \
	    else echo "this machine lacks a C linker; run: sudo xtask/install-packages gcc libc6-dev" >&2; exit 1; fi; }
