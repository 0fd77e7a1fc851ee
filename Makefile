# galbatch: everything a newcomer needs. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install demo test check unit docs peers clean

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## make the environment (.venv) from pinned versions

# The pins give the same versions everywhere; torch's is the release whose wheel is small and CPU-only where one is offered.
$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: install ## simulate a survey, run everything on it, verify, report (no data, GPU or network)
	$(BIN)/galbatch demo

check: install ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: install ## the fast tests only
	$(BIN)/python -m pytest tests/unit tests/property

test: check ## everything CI runs: checks, unit, property and integration tests
	$(BIN)/python -m pytest

docs: install ## write docs/reference.md anew from the code
	$(BIN)/python docs/make_reference.py

peers: ## make the environment (.venv-peers) of what the benchmarks compare with
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --requirement benchmarks/peers/requirements.txt

clean: ## remove the environment and caches
	rm -rf $(VENV) .venv-peers .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
