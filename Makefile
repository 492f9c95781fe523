# Everything a newcomer needs, in order of need. Nothing but Python >= 3.11 and make has to be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.installed-bench
DEMO_ARGS ?=

# Neither Ray, MLflow nor anything else reports home.
export RAY_USAGE_STATS_ENABLED = 0
export MLFLOW_DISABLE_TELEMETRY = true
export DO_NOT_TRACK = true

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format types bench docs-check clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(0 if sys.version_info >= (3, 11) else f"rlaas needs Python >= 3.11, this is {v}; try: make PYTHON=python3.12")'
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	# torch alone first: with it in place nothing else pulls in another build of it.
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

$(BENCH_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,bench]'
	@touch $@

setup: $(STAMP) ## install into .venv

demo: $(STAMP) ## run the whole loop on a local Ray (DEMO_ARGS="--scenario recsys" and so on)
	$(BIN)/rlaas demo $(DEMO_ARGS)

test: $(STAMP) ## every test, with real parts
	# A file at a time on every core, in the order of tests/support/order.py: the long ones first.
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

lint: $(STAMP) ## ruff, formatting, rules of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: $(STAMP) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP) ## mypy --strict
	$(BIN)/mypy

bench: $(BENCH_STAMP) ## every benchmark against its rival (BENCH_ARGS=--quick for a short one)
	for file in scenarios morl fidelity training training_runs quality targets offline federated optimization optimization_quality decisions tuning_search serving; do $(BIN)/python -m benchmarks.$$file $(BENCH_ARGS) || exit 1; done

docs-check: $(STAMP) ## links, commands and examples of the documentation
	$(BIN)/python -m pytest tests/test_docs.py

clean: ## remove what was built; .rlaas and demo/ stay
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
