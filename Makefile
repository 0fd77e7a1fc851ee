# galbatch: everything a newcomer needs. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install demo test check unit docs demo-bundles peers clean

TRAIN := OMP_NUM_THREADS=1 $(BIN)/galbatch models train
CALIBRATE := OMP_NUM_THREADS=1 $(BIN)/galbatch models calibrate --objects 4000

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

docs: install ## build the docs' site in build/docs; warnings are errors
	$(BIN)/sphinx-build -q -W --keep-going -n -b html docs build/docs

# The seeds and one thread give the shipped weights bit by bit on a processor of the same kind. SFNet first learns with all features.
demo-bundles: install ## train and calibrate the shipped bundles anew, in build/ (an hour and a half of one core)
	mkdir -p build
	$(TRAIN) gampen -o build/gampen_raw.pt
	$(TRAIN) gampen -o build/gampen_survey_raw.pt --population survey --settings galbatch/models/demo/gampen_survey.toml
	$(TRAIN) sfnet -o build/sfnet_dense.pt --settings galbatch/models/demo/sfnet_dense.toml
	$(TRAIN) sfnet -o build/sfnet_raw.pt --from build/sfnet_dense.pt --settings galbatch/models/demo/sfnet.toml
	$(CALIBRATE) build/gampen_raw.pt -o build/gampen.pt --simulate paper --also survey
	$(CALIBRATE) build/gampen_survey_raw.pt -o build/gampen_survey.pt --simulate survey --also paper
	$(CALIBRATE) build/sfnet_raw.pt -o build/sfnet.pt --simulate paper --also survey --beside build/sfnet_dense.pt

peers: ## make the environment (.venv-peers) of what the benchmarks compare with
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --requirement benchmarks/peers/requirements.txt

clean: ## remove the environment and caches
	rm -rf $(VENV) .venv-peers .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
