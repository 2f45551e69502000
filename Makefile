# Build, check and show trytond-fastbus; make help lists the targets.
#
# It needs Python >= 3.10 with venv, and Rust. Each series of trytond has its own
# environment below .environments, which is made again when its file in
# tests/requirements changes.

PYTHON ?= python3
# The series of trytond to test, and those that run every test
SERIES ?= 6.0 7.0 7.8 8.0 8.2
FULL ?= 8.2 7.0
# The web client is published for 7.0 and 8.0 only
WEB_8.0 := tests/web

environments := .environments
tools := $(environments)/tools/bin
wheel := target/wheels/.built
cargo-deny := $(environments)/cargo/bin/cargo-deny
sources := Cargo.toml Cargo.lock pyproject.toml README.md LICENSE \
	$(shell find src python -type f -not -name '*.pyc' -not -name '*.so')

# A Python without the GIL
FREE_THREADED ?= python3.14t
# The compiler gives way to tests that run beside it.
cargo := $(if $(MAKELEVEL:0=),nice -n 5 )cargo

# On SQLite, or on a throw-away PostgreSQL
DB ?= sqlite
plots := $(environments)/plots/bin
demo := $(environments)/$(if $(filter postgresql,$(DB)),8.2,demo)

# Run a command, and show its output only if it fails
quiet = output=$$($(1) 2>&1) || { echo "$$output"; exit 1; }

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Tests start a thousand processes; without .pyc each of them compiles trytond
# again, which takes longer than the rest of its start.
unexport PYTHONDONTWRITEBYTECODE
# PyO3 is built for the same Python in the checks and in the wheel
export PYO3_PYTHON := $(CURDIR)/$(tools)/python

MAKEFLAGS += --no-builtin-rules --no-print-directory
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: help demo check try test lint test-rust test-loom stubs \
	docs links check-plots real-clients test-python test-compat test-free-threaded \
	soak fuzz tsan bench bench-server plots dist audit clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(demo)/.product ## Show a message on its way through trytond and trytond-bus (DB=postgresql; KEEP=1: leave them running)
	@$(demo)/bin/python examples/demo.py $(DB)

check: lint ## Check form and lints, and run the unit tests in Rust: in a minute
	@echo "unit tests in Rust"
	@cargo test -q --locked --no-default-features --features server --lib

# A development build in an environment of its own
K ?=
ARGS ?= -q
tried := $(environments)/try-$(lastword $(SERIES))

try: $(tried)/.requirements ## Run the tests in Python whose name matches, in one series (K=chat SERIES=8.2 ARGS="-x -v")
	@$(call quiet,PATH="$(CURDIR)/$(tools):$$PATH" \
		VIRTUAL_ENV=$(CURDIR)/$(tried) maturin develop -q --locked --uv \
		$(if $(wildcard $(tried)/.installed),--skip-install))
	@touch $(tried)/.installed
	@$(tried)/bin/python -m pytest $(ARGS) -k '$(K)' tests

# $(call part,NAME,NEEDS,AFTER) makes the target NAME a part of make test, which
# starts the parts in the order of this file. The needs of a part are made before
# it, once. cargo has one lock, so the wheel goes first: most tests wait for it.
define part
parts += part-$(1)
$(1): $(2)
part-$(1): $(2) | $(3)
	@$$(PYTHON) tests/part.py run $(1) \
		env -u MAKEFLAGS -u MFLAGS $$(MAKE) --no-print-directory \
		$(1) $$(MAKEOVERRIDES)
endef
JOBS ?= 6

test: ## Run all checks and tests, JOBS=6 parts at a time
	@rm -rf target/parts && mkdir -p target/parts
	@$(MAKE) -k -j$(JOBS) $(parts); \
		$(PYTHON) tests/part.py report $(parts:part-%=%)

# In a container (root, and no init system) the programs that some tests need are
# installed. Elsewhere the administrator installs them, and tests of missing
# programs are skipped.
real-clients:
	@if [ "$$(id -u)" = 0 ] && [ ! -d /run/systemd/system ] \
		&& command -v apt-get > /dev/null \
		&& ! { command -v chromium && command -v nginx \
			&& command -v pgbouncer; } > /dev/null; \
	then \
		echo "chromium, nginx and PgBouncer"; \
		{ apt-get -q update && DEBIAN_FRONTEND=noninteractive \
			apt-get -q install -y --no-install-recommends \
			chromium nginx openssl pgbouncer; } > /dev/null 2>&1 \
			|| echo "not installed: some tests are skipped"; \
	fi

$(foreach s,$(FULL) $(filter-out $(FULL),$(SERIES)),$(eval \
	$(call part,test-python-$(s),$(environments)/$(s)/.product real-clients)))
test-python: $(SERIES:%=test-python-%) ## Test the package in each series (test-python-8.2: in one)

# In the first of FULL all tests run, in the other those whose result may differ
# there, and in the rest those that compare with stock. Each worker has its own
# PostgreSQL. Tests mostly wait, so the two series run at the same time.
WORKERS ?= $(if $(filter $*,$(all)),4,$(if $(filter $*,$(FULL)),2,0))
EVERY ?=
all := $(if $(EVERY),$(FULL),$(firstword $(FULL)))

$(SERIES:%=test-python-%): test-python-%:
	@echo "tests in Python, trytond $*"
	@$(environments)/$*/bin/python -m pytest -q --dist loadfile \
		--no-loadscope-reorder -n $(WORKERS) \
		--junitxml target/parts/$@.xml \
		$(if $(filter $*,$(FULL)),tests,tests/compat $(WEB_$*)) \
		$(if $(filter $*,$(all)),,-m 'not one_series')

$(eval $(call part,test-rust,$(environments)/tools/.requirements,$(wheel)))
test-rust: ## Test the engine and the server in Rust
	@echo "tests in Rust"
	@$(cargo) test -q --locked --no-default-features --features server --no-run
	@cargo test -q --locked --no-default-features --features server

$(eval $(call part,test-loom,$(environments)/tools/.requirements))
test-loom: ## Run the models of the state that threads share
	@echo "models in loom"
	@RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom \
		$(cargo) test -q --locked --profile loom --no-default-features \
		--test loom

# All of it, all but Python, and the engine alone
$(eval $(call part,lint,$(environments)/tools/.requirements,$(wheel)))
lint: ## Check form, lints and the documentation of the API
	@echo "form"
	@cargo fmt --check
	@for lock in benches/load fuzz; do \
		cargo metadata -q --locked --format-version 1 \
			--manifest-path $$lock/Cargo.toml > /dev/null || exit 1; \
	done
	@! grep -rnE --include='*.rs' --exclude-dir=python '^[^/]*\<pyo3\>' src \
		|| { echo "pyo3 belongs to src/python"; exit 1; }
	@$(tools)/ruff check -q
	@echo "clippy"
	@$(cargo) clippy -q --locked --all-targets -- -D warnings
	@$(cargo) clippy -q --locked --all-targets --no-default-features \
		--features server -- -D warnings
	@$(cargo) clippy -q --locked --lib --no-default-features -- -D warnings
	@echo "rustdoc"
	@RUSTDOCFLAGS="-D warnings" $(cargo) doc -q --locked --no-deps

$(eval $(call part,stubs,$(environments)/8.2/.product))
stubs: ## Compare the stubs with the native module
	@echo "stubs"
	@$(environments)/8.2/bin/python -m mypy.stubtest trytond_fastbus._native

$(eval $(call part,docs,$(environments)/docs/.requirements))
docs: ## Check the documentation, and make it as a site in target/docs
	@echo "docs"
	@$(environments)/docs/bin/python -m tests.docs
	@$(environments)/docs/bin/sphinx-build -q -E -W --keep-going \
		-d target/doctrees docs target/docs

links: $(environments)/docs/.requirements ## Check the links of the documentation (network)
	@$(environments)/docs/bin/sphinx-build -q -b linkcheck \
		-d target/doctrees docs target/links

$(eval $(call part,check-plots,$(environments)/plots/.requirements))
check-plots:
	@echo "plots and tables"
	@$(plots)/python -m tests.plots

$(eval $(call part,test-compat,$(SERIES:%=$(environments)/%/.product)))
test-compat: ## Run trytond's own tests of the bus on ours
	@echo "trytond's own tests"
	@$(environments)/$(lastword $(SERIES))/bin/python \
		tests/compat/upstream.py $(SERIES)

# Without PYTHON_GIL, lxml, which trytond imports, would switch the GIL on.
test-free-threaded: $(environments)/free-threaded/.product ## Run both on a Python without the GIL (FREE_THREADED=python3.14t)
	@echo "tests in Python, without the GIL"
	@PYTHON_GIL=0 $(environments)/free-threaded/bin/python -m pytest -q \
		--dist loadfile --no-loadscope-reorder -n 3 \
		tests --ignore tests/web
	@echo "trytond's own tests, without the GIL"
	@PYTHON_GIL=0 $(environments)/free-threaded/bin/python \
		tests/compat/upstream.py free-threaded

# No committed message is lost, however often a process is killed. SEED repeats a
# run, and RUN holds other options (see python -m faults -h).
SECONDS ?= 600
RUN ?=

soak: $(environments)/release/.product ## Look for lost messages under random faults (SECONDS=600 SEED=7 RUN="--database sqlite")
	@cd tests && PYTHONPATH=.:.. ../$(environments)/release/bin/python -m faults \
		--seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(RUN)

# It needs cargo-fuzz and a nightly toolchain. Findings are in fuzz/artifacts;
# move them to fuzz/seeds when they are fixed.
TARGETS ?= credential parts payload question request

fuzz: SECONDS := $(if $(filter file,$(origin SECONDS)),60,$(SECONDS))
fuzz: ## Look for bytes that break a parser (SECONDS=60 TARGETS=request)
	@for target in $(TARGETS); do \
		echo "fuzz $$target"; \
		mkdir -p fuzz/corpus/$$target && \
		cargo +nightly fuzz run $$target fuzz/corpus/$$target \
			fuzz/seeds/$$target -- -max_total_time=$(SECONDS) \
			-detect_leaks=0 -max_len=8192 -rss_limit_mb=1024 -timeout=20 \
			-dict=fuzz/dictionary -print_final_stats=1 || exit 1; \
	done

# Without Python, whose interpreter would have to be built for it, and without
# tests that measure time, because everything takes about ten times as long.
tsan: ## Run the tests in Rust under ThreadSanitizer (nightly, with rust-src)
	@RUSTFLAGS=-Zsanitizer=thread RUSTDOCFLAGS=-Zsanitizer=thread \
		CARGO_TARGET_DIR=target/tsan PROPTEST_CASES=16 \
		TSAN_OPTIONS=suppressions=$(CURDIR)/tests/tsan.supp \
		cargo +nightly test -q --locked -Zbuild-std \
		--target $$(rustc -vV | sed -n 's/^host: //p') \
		--no-default-features --features server --lib --tests -- \
		--skip drain_answers_a_thousand_polls_one_after_the_other \
		--skip drain_answers_all_streams_one_after_the_other \
		--skip clients_that_send_a_byte_at_a_time

bench: $(environments)/release/.product ## Compare with the stock bus, and record it (PARTS="a g": some parts)
	@$(environments)/release/bin/python -m benches $(PARTS) --record

bench-server: $(environments)/release/.product ## Compare servers of long polls, nginx with nchan too, and record it
	@$(environments)/release/bin/python -m benches.server --record

plots: $(environments)/plots/.requirements ## Draw the plots and write the tables of the docs from benches/results
	@$(plots)/python -m benches.plots
	@$(plots)/python -m benches.tables

dist: $(environments)/dist/.requirements ## Build, check and try the files of a release (REPOSITORY=https://… for PyPI)
	@echo "build"
	@$(environments)/dist/bin/python -m release.build
	@echo "check"
	@$(environments)/dist/bin/python -m release.check
	@echo "try"
	@$(environments)/dist/bin/python -m release.smoke

audit: $(cargo-deny) $(environments)/audit/.requirements ## Check licences, sources and known vulnerabilities of dependencies
	@$(environments)/audit/bin/python -m release.audit

clean: ## Remove all made files
	rm -rf dist target $(environments)

# The wheel that is tested, for this machine only and without optimisation. It
# shares the build of the dependencies with the tests in Rust. Benchmarks use the
# wheel of a release.
$(wheel): $(sources) | $(environments)/tools/.requirements
	@$(call build,$(PYO3_PYTHON))

target/wheels/release/.built: $(sources) | $(environments)/tools/.requirements
	@$(call build,$(PYO3_PYTHON),--release)

target/wheels/free-threaded/.built: $(sources) | $(environments)/tools/.requirements
	@$(call build,$(FREE_THREADED))

define build
	echo "build $@"
	@rm -f $(@D)/*.whl
	@$(call quiet,PYO3_PYTHON=$(1) $(tools)/maturin build -q --locked $(2) \
		--out $(@D) --interpreter $(1))
	@touch $@
endef

# This compiles for some minutes.
$(cargo-deny):
	@echo "cargo-deny"
	@$(call quiet,cargo install -q --locked --root $(environments)/cargo \
		cargo-deny@0.20.2)

# Install the product in an environment
$(environments)/%/.product: $(wheel) $(environments)/%/.requirements
	@$(call install)
$(environments)/release/.product: target/wheels/release/.built $(environments)/release/.requirements
	@$(call install)
$(environments)/free-threaded/.product: target/wheels/free-threaded/.built $(environments)/free-threaded/.requirements
	@$(call install)

define install
	$(tools)/uv pip install -q --python $(@D) --reinstall --no-deps \
		$(<D)/*.whl
	@touch $@
endef

$(environments)/free-threaded/.requirements: PYTHON = $(FREE_THREADED)

# The tools environment has the program that makes the others.
$(environments)/tools/.requirements: tests/requirements/tools.txt
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/pip install -q -r $<
	@touch $@

# An environment; those of the series need a PostgreSQL
$(SERIES:%=$(environments)/%/.requirements): tests/requirements/common.txt
$(environments)/try-%/.requirements: tests/requirements/%.txt tests/requirements/common.txt | $(environments)/tools/.requirements
	@$(call make-environment,$<)
$(environments)/%/.requirements: tests/requirements/%.txt | $(environments)/tools/.requirements
	@$(call make-environment,$<)

# uv does not read the configuration of pip. So it gets the index from there, and
# if it fails, pip tries.
define make-environment
	echo "environment $(notdir $(@D))"; \
	index=$$($(tools)/pip config list \
		| sed -n "s/.*\.index-url='\(.*\)'/\1/p" | tail -n 1); \
	index=$${UV_DEFAULT_INDEX:-$${index:-https://pypi.org/simple}}; \
	install() { UV_DEFAULT_INDEX="$$index" \
		$(tools)/uv pip install -q --python $(@D) -r "$$1"; }; \
	{ $(tools)/uv venv -q --clear --python "$$(command -v $(PYTHON))" $(@D) \
		&& install $(1); } || \
	{ $(PYTHON) -m venv --clear $(@D) && $(@D)/bin/pip install -q -r $(1); } \
		|| exit 1; \
	case $(1) in tests/requirements/[0-9r]*) \
		$(@D)/bin/python tests/support/postgresql.py > /dev/null 2>&1 || \
		install tests/requirements/postgresql.txt;; esac
	@rm -f $(@D)/.installed
	@touch $@
endef
