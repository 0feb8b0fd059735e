# On a fresh machine:  make demo   and   make test
# They need Python 3.11 or newer, a C compiler and the package registries. All that they install goes into .venv.

PYTHON ?= python3
ARGS ?=
# Tests wait more than they work, so a worker more than there are cores; for some of them, none: that starts sooner.
WORKERS ?= $(if $(ARGS),0,3)
SECONDS ?= 60
MINUTES ?= 10
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# What the installation is made of. A change here builds the core anew and looks at the dependencies again.
SOURCES := pyproject.toml setup.py $(wildcard src/*.pyx src/*.pxd src/_core/*.pyx)

.PHONY: help demo test long lint bench soak sanitize fuzz faults wheel clean

help:
	@echo 'make demo   a store, the session service and a demo site; prints one URL     (ARGS=--once: report and stop)'
	@echo 'make test   the test suite                                                   (ARGS="-k refresh": some of it)'
	@echo 'make long   the tests that take too long for make test'
	@echo 'make lint   ruff, cython-lint, codespell'
	@echo 'make sanitize  the suite with a core that reports memory errors, undefined behaviour and leaks (needs gcc)'
	@echo 'make fuzz   libFuzzer on the core, SECONDS=60 for each target; needs clang    (ARGS="json verify": these targets)'
	@echo 'make faults faults on real servers, MINUTES=10 in all, and a million simulated refreshes; docs/faults.md'
	@echo 'make bench  what verifying, refreshing and revoking cost on this machine, beside others (under ten minutes)'
	@echo 'make soak   a service of a million sessions at work, MINUTES=10                 (ARGS="--fault kill@3": and a fault)'
	@echo 'make wheel  an sdist and a wheel, in dist/'
	@echo 'make clean  removes what the others made'

demo: $(VENV)/.for-demo
	@$(BIN)/fastverify demo $(ARGS)

# A file's tests stay together, for they share servers; the files come in the order of tests/conftest.py. A worker that
# dies is not replaced: pytest-xdist 3.8 may then wait for ever (its issues 1323 and 1327).
SPREAD := --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0

test: $(VENV)/.for-test
	$(BIN)/python -m pytest $(SPREAD) $(ARGS)

long: $(VENV)/.for-test
	$(BIN)/python -m pytest -m long $(ARGS)

lint: export PATH := $(abspath $(BIN)):$(PATH)
lint: $(VENV)/.for-test
	ruff check
	ruff format --check
	cython-lint src tests/fuzz
	codespell

# Every program runs in the peers' environment; BENCH_PYTHON=python3.12 chooses its Python, ARGS="--rounds 5" hurries.
BENCH_PYTHON ?=
BENCH := .venv-bench
RESULTS := bench/results
bench: $(BENCH)/.ready $(VENV)/.for-test
	$(foreach name,verify peers threads revoked memory http_requests refresh revocations,$(call run-bench,$(name)))
	$(BIN)/python bench/verify.py --algorithms RS256,ES256 $(ARGS) --json $(RESULTS)/verify_here.json
	$(BENCH)/bin/python bench/plot.py
	$(BENCH)/bin/python bench/report.py

soak: $(BENCH)/.ready
	$(BENCH)/bin/python bench/soak.py --minutes $(MINUTES) $(ARGS) --json $(RESULTS)/soak.json
	$(BENCH)/bin/python bench/plot.py
	$(BENCH)/bin/python bench/report.py

define run-bench
	$(BENCH)/bin/python bench/$(1).py $(ARGS) --json $(RESULTS)/$(1).json

endef

$(BENCH)/.ready: $(SOURCES) bench/install_peers.py | $(BIN)/python
	@$(BIN)/python bench/install_peers.py --python "$(BENCH_PYTHON)"
	@touch $@

# Both build a core of their own, in build/.
sanitize: $(VENV)/.for-test
	$(BIN)/python tests/sanitize.py $(ARGS)

fuzz: $(VENV)/.for-test
	PYTHONPATH=tests $(BIN)/python tests/fuzz/run.py --seconds $(SECONDS) $(ARGS)

# A third of the time for each topology; ARGS="--seed 1 --json" goes to each.
faults: $(VENV)/.for-test
	$(foreach topology,standalone sentinel cluster,$(call run-faults,$(topology)))
	$(BIN)/python -m tests.faults.simulation

define run-faults
	$(BIN)/python -m tests.faults.run --topology $(1) --minutes $$(awk 'BEGIN { print $(MINUTES) / 3 }') $(ARGS)

endef

wheel: | $(BIN)/python
	@$(PIP) install --quiet build
	$(BIN)/python -m build

clean:
	rm -rf $(VENV) $(BENCH) $(BENCH)-node build dist *.egg-info src/*.c fastverify/_core.*.so .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# A stamp says what the environment holds: nothing is installed twice.
$(VENV)/.for-demo: EXTRAS := embedded,server
$(VENV)/.for-test: EXTRAS := test
$(VENV)/.for-demo $(VENV)/.for-test: $(SOURCES) | $(BIN)/python
	@echo 'Building the core and installing $(EXTRAS) into $(VENV) ...'
	@$(PIP) install --quiet --editable '.[$(EXTRAS)]'
	@touch $@ $(VENV)/.for-demo

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("fastverify needs Python 3.11 or newer; name one with make PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
