# galbatch: everything a newcomer needs. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install demo test test-long test-faults test-slurm check unit docs demo-bundles demo-opinions peers clean

# Two processes share the tests file by file, so that fixtures of a module are made once, in the order that conftest.py gives: unit tests first.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

FAULTS ?= 100

TRAIN := OMP_NUM_THREADS=1 $(BIN)/galbatch models train
CALIBRATE := OMP_NUM_THREADS=1 $(BIN)/galbatch models calibrate --objects 4000

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## make the environment (.venv) from pinned versions

# The pins give the same versions everywhere; torch's is the release whose wheel is small and CPU-only where one is offered.
$(VENV)/.installed: requirements.lock pyproject.toml
	@echo "Installing into $(VENV): some minutes, 4 GB."
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

unit: install ## the unit and property tests, but for slow ones
	$(PYTEST) -m "not slow" tests/unit tests/property

test: check ## what every change must pass: checks, then unit, property and integration tests, but for slow ones
	$(PYTEST) -m "not slow"

test-long: docs ## the slow tests: faults at every step, fuzz, documents that are run, benchmarks at toy size; and the docs
	$(PYTEST) -m slow -o timeout=900

# Each fault takes some 35 s of processor time. Both processes simulate the survey for themselves. The table is written also where a test failed.
test-faults: install ## 100 seeded faults of all kinds through the command line, and a table of what came of them (an hour at most)
	rm -f build/faults.jsonl
	$(BIN)/python -m pytest tests/faults --faults $(FAULTS) --faults-log build/faults.jsonl -n 2 --dist load -q; code=$$?; \
	$(BIN)/python -m tests.faults.table build/faults.jsonl; exit $$code

# Tells how to install SLURM where it is missing. Jobs wait for time limits of two minutes; on a busy machine a test takes more than the usual 15.
test-slurm: install ## runs by SLURM, on a site of the loopback that the tests start: jobs that are lost or end at their time limit
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/slurm --slurm -q -o timeout=3600

docs: install ## build the docs' site in build/docs; warnings are errors
	$(BIN)/sphinx-build -q -W --keep-going -n -b html docs build/docs

# The seeds and one thread give the shipped weights bit by bit on a processor of the same kind. SFNet first learns with all features.
demo-bundles: install ## train and calibrate the shipped bundles again, in build/ (an hour and a half of one core)
	mkdir -p build
	$(TRAIN) gampen -o build/gampen_raw.pt
	$(TRAIN) gampen -o build/gampen_survey_raw.pt --population survey --settings galbatch/models/demo/gampen_survey.toml
	$(TRAIN) sfnet -o build/sfnet_dense.pt --settings galbatch/models/demo/sfnet_dense.toml
	$(TRAIN) sfnet -o build/sfnet_raw.pt --from build/sfnet_dense.pt --settings galbatch/models/demo/sfnet.toml
	$(CALIBRATE) build/gampen_raw.pt -o build/gampen.pt --simulate paper --also survey
	$(CALIBRATE) build/gampen_survey_raw.pt -o build/gampen_survey.pt --simulate survey --also paper
	$(CALIBRATE) build/sfnet_raw.pt -o build/sfnet.pt --simulate paper --also survey --compare-with build/sfnet_dense.pt

demo-opinions: install ## measure the second opinions of the shipped bundles again, next to them (ten minutes of one core); after a raised PHOTOMETRY_VERSION
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/second_opinion.py demo:gampen demo:gampen_survey demo:sfnet --write

peers: ## make the environment (.venv-peers) of what the benchmarks compare with
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --requirement benchmarks/peers/requirements.txt

clean: ## remove the environment and caches
	rm -rf $(VENV) .venv-peers build/docs .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
