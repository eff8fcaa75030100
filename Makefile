# Needs python3 (3.11 or newer) and make, nothing else. `make` alone explains itself.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TYPED := libs services cli
# Arguments for the program behind a target: make run ARGS='--gateways 2', make test ARGS='-k lease'
ARGS ?=
# How many processes run the tests; what they start is mostly waited for.
WORKERS ?= 6
PARALLEL = -n $(WORKERS) --dist loadfile --no-loadscope-reorder
CLIENTS := tests/clients
# Where no test is marked `timing` (tests/unit/test_suite.py): the second run of `make test` need not look there.
UNTIMED := $(CLIENTS) tests/unit tests/contract tests/deploy tests/faults tests/fuzz
CLIENTS_INSTALLED := $(CLIENTS)/.venv/.installed
SECONDS ?= 60
SEED ?=
BASE ?= HEAD~1

# Tools keep their caches here, so that an empty or missing home folder is no obstacle.
export BUF_CACHE_DIR := $(CURDIR)/.cache/buf
# Without compiled files every process that the tests start would compile all of the code once more.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run test test-fast test-clients soak fuzz bench bench-compare try-provider images check lint type gen lock audit clean

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml constraints.txt .ci/install.py
	@$(PYTHON) .ci/install.py $(VENV)
	@touch $@

run: $(INSTALLED) ## Start the whole system on this machine and talk to it (Ctrl-C stops it)
	@$(BIN)/parley up $(ARGS)

# 5 is pytest's word for "none of these": ARGS may ask for tests of one kind only, but not for none at all.
test: $(INSTALLED) ## Run the whole test suite, against a real PostgreSQL and a real Redis
	@$(BIN)/python -m pytest $(PARALLEL) -m "not timing" --ignore=$(CLIENTS) $(ARGS); many=$$?; \
	case $$many in 0|5) ;; *) exit $$many; esac; \
	$(BIN)/python -m pytest -m timing $(UNTIMED:%=--ignore=%) $(ARGS); timed=$$?; \
	[ $$timed -ne 5 ] || timed=$$many; exit $$timed

# Most of it computes, and each worker more imports and collects all of it once more.
test-fast: WORKERS = 5
test-fast: $(INSTALLED) ## Run units, and contracts on in-process doubles, in less than a minute: no servers, processes or long waits
	$(BIN)/python -m pytest $(PARALLEL) -m "not servers and not timing and not slow" $(ARGS) tests/unit tests/contract

# What the tests of clients use has an environment of its own: no version in it is bound by Parley's, nor binds one.
$(CLIENTS_INSTALLED): $(CLIENTS)/requirements.txt $(CLIENTS)/package-lock.json
	@$(PYTHON) -m venv $(CLIENTS)/.venv
	@$(CLIENTS)/.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $(CLIENTS)/requirements.txt
	@if command -v npm >/dev/null; then cd $(CLIENTS) && npm ci --silent; \
	else echo "npm is not installed: the clients in TypeScript are left out"; fi
	@touch $@

test-clients: $(INSTALLED) $(CLIENTS_INSTALLED) ## Run real clients and frameworks, from PyPI and npm, against the system
	$(BIN)/python -m pytest $(ARGS) $(CLIENTS)

soak: $(INSTALLED) ## Break everything at random and check every turn: make soak SECONDS=600 [SEED=1]
	$(BIN)/python -m tests.faults.history --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) --min-faults $$(( $(SECONDS) / 3 ))

fuzz: $(INSTALLED) ## Fuzz every parser of untrusted bytes, each for SECONDS: make fuzz [SECONDS=60] [ARGS=sse]
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(ARGS)

bench: $(INSTALLED) ## Measure the budgets (under 10 minutes; ARGS=--quick: 90 s)
	$(BIN)/python -m benchmarks.run $(ARGS)

bench-compare: $(INSTALLED) ## Compare with another revision: make bench-compare BASE=HEAD~1 [ARGS=--instructions]
	$(BIN)/python -m benchmarks.compare $(BASE) $(ARGS)

try-provider: $(INSTALLED) ## Call a live provider: make try-provider ARGS='--base-url URL --model NAME --key-env VARIABLE'
	@$(BIN)/python -m benchmarks.try_provider $(ARGS)

images: $(INSTALLED) ## Build every image and its list of contents: make images [ARGS='config_svc --tag NAME']
	$(BIN)/python deploy/images/build.py $(ARGS)

check: lint type ## Everything that needs no running: lint, types, and that generated files are current
	$(BIN)/python protos/generate.py --check
	$(BIN)/python docs/generate.py --check

lint: $(INSTALLED) ## Style, import rules, protos
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/buf lint protos

type: $(INSTALLED) ## Types, strictly
	$(BIN)/mypy $(TYPED)

gen: $(INSTALLED) ## Generate the stubs in libs/parley from protos/, and docs/configuration.md from the settings
	$(BIN)/python protos/generate.py
	$(BIN)/python docs/generate.py

lock: $(INSTALLED) ## Lock packages that pyproject.toml came to name, with hashes (ARGS=--upgrade: all at their newest versions)
	$(BIN)/python .ci/lock.py $(ARGS)

audit: $(INSTALLED) ## Ask for known vulnerabilities of every locked package
	$(BIN)/python .ci/audit.py $(ARGS)

clean: ## Remove .venv and caches; data in .parley/ stays
	rm -rf $(VENV) $(CLIENTS)/.venv $(CLIENTS)/node_modules .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find libs services cli tests protos -name __pycache__ -type d -prune -exec rm -rf {} +
