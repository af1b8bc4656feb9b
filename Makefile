# Everything is set up in .venv on first use: python3 (3.11 or later) with venv, git and make are all it takes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXTRAS ?= dev
ARGS ?=

.PHONY: help run test lint bench bench-suite bench-compare conformance fuzz soak overload audit build docs clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

run: $(READY) ## start the gateway on config/quickstart.yaml, with a demo service behind it
	@exec $(BIN)/penstock run --demo --hint 'curl -i -u ada:lovelace {url}/' config/quickstart.yaml

# A file's tests share what its fixtures start: they stay in one process.
test: $(READY) ## run the whole suite, a process for each CPU (ARGS="-k name" for a part of it, ARGS="-n 0" in one process)
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy

bench: $(READY) ## compare quickly with the real Envoy (benchmarks/README.md)
	$(BIN)/pip install --quiet --editable '.[oracle,build]'
	$(BIN)/python -m benchmarks.compare $(ARGS)

bench-suite: $(READY) ## all benchmarks, 10 minutes, with a report in HTML (ARGS="--quick": 2 minutes)
	$(BIN)/pip install --quiet --editable '.[oracle,build,bench]'
	$(BIN)/python -m benchmarks.suite $(ARGS)

REF ?= HEAD
bench-compare: $(READY) ## the micro-benchmarks of this tree against a commit's (REF=v0.1.0)
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks.micro.compare $(ARGS) $(REF)

fuzz: $(READY) ## mutated attacks against a gateway process, for a minute (ARGS="--seconds 3600 --seed 7")
	$(BIN)/python -m tests.attacks.fuzz $(ARGS)

conformance: $(READY) ## put 10,000 generated filter programs to Envoy and to Penstock (ARGS="--seed 7")
	$(BIN)/pip install --quiet --editable '.[oracle]'
	$(BIN)/python -m tests.conformance --programs 10000 $(ARGS)

soak: $(READY) ## a million requests through three filters, on uvloop and on asyncio (ARGS="--requests 100000")
	@$(BIN)/python -m benchmarks.soak $(ARGS)

overload: $(READY) ## four times the capacity: goodput, and how soon it is back (ARGS="--seconds 60")
	@$(BIN)/python -m benchmarks.overload $(ARGS)

audit: $(READY) ## ask a vulnerability database about the installed packages, where one can be reached
	@$(BIN)/python .ci/audit $(BIN)/python

build: $(READY) ## rebuild the ABI core and the filters; fails if a byte differs from what is committed
	$(BIN)/pip install --quiet --editable '.[build]'
	$(BIN)/python -m proxy.abi.core.build --check
	$(BIN)/python filters/build.py --check

docs: $(READY) ## write the pages that are made from the sources: keys, commands, errors, attacks
	@for page in configuration commands errors attacks; do $(BIN)/python docs/build_$$page.py; done

clean: ## remove what make has made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

# pip leaves a broken environment behind when it is interrupted: .ready is written last.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Penstock needs Python 3.11 or later, this is " + sys.version.split()[0])'
	@test -x $(BIN)/pip || $(MAKE) --no-print-directory environment
	@echo "setting up $(VENV) (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'
	@touch $@

# Debian keeps what `python3 -m venv` needs in a package of its own: as root (a container) it is installed, else asked for.
.PHONY: environment
environment:
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing python3-venv, which Debian's python3 lacks ..."; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null; \
	  else echo "this python3 cannot make virtual environments; run: sudo apt-get install python3-venv" >&2; exit 1; fi; }
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
