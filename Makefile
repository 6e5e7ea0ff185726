# Everything a person needs. `make help` lists it. Each target installs what it needs first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TEST_PROCESSES ?= 3

.DEFAULT_GOAL := help
.PHONY: help setup generate lock check test chaos demo fuzz up bench bench-full soak clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## Make the virtual environment, with everything pinned

$(STAMP): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (once; takes a minute)..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

generate: setup  ## Make generated/ from protos/, and the mesh rules of helm/ and istio/
	@$(BIN)/python protos/generate.py
	@$(BIN)/python helm/generate.py

lock: setup  ## Renew the lock files from pyproject.toml
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-emit-index-url \
	  --no-annotate --no-header pyproject.toml --output-file requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra bench --no-emit-index-url \
	  --no-annotate --no-header pyproject.toml --output-file bench/requirements.lock

check: setup  ## Formatting, lint, types, import rule, proto lint, generated drift
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python protos/generate.py --lint
	$(BIN)/python protos/generate.py --check
	$(BIN)/python helm/generate.py --check

# Files go out in the order of their names, so that the long ones of tests/acceptance come first. What fails is run once
# more, by itself: real processes on a machine busy with other work may exceed their time, and only that is forgiven.
test: setup  ## All tests, against real servers that they start themselves, on several processes
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder || \
	  { echo "Once more what failed, by itself:"; $(BIN)/python -m pytest --last-failed --last-failed-no-failures none; }

chaos: setup  ## The fault matrix: breaks each part under load, three times, and judges; takes two hours
	@$(BIN)/python -m tests.chaos --runs 3

fuzz: setup  ## 200,000 generated requests over every method; REQUESTS=n for another number
	@$(BIN)/python -m tests.fuzz --requests $(or $(REQUESTS),200000)

demo: setup  ## The main job for real: a load through the public API, and a verdict
	@$(BIN)/python -m scheduling.demo

up: setup  ## The whole stack with demo siblings, staying up, for grpcurl and the command line
	@$(BIN)/python -m scheduling up --siblings

bench: setup  ## Measure everything that is in the budget, medians of three runs (CASE=name for one)
	@$(BIN)/python -m bench $(CASE)

bench-full: setup  ## The same with what takes very long: growth
	@$(BIN)/python -m bench --full $(CASE)

soak: setup  ## A steady load for MINUTES (30), and whether lateness, tables and memory stay flat
	@$(BIN)/python -m bench.soak --minutes $(or $(MINUTES),30)

clean:  ## Remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
