# What a developer and the CI run; both run the same recipes.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.durabatch-setup

# `temporal`, `temporal-test-server`, `hadolint` and the tools come from the virtual environment.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Tests start hundreds of processes, and each would compile everything anew where Python must not keep what it compiled.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup clients test test-slow test-all chaos bench bench-size lint format schemas constraints demo clean

help: ## Show what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv and install everything into it, pinned (PYTHON=python3.12 chooses another one)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@# --group came with pip 25.1.
	$(VENV)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(VENV)/bin/python -m pip install --quiet --editable '.[all]' --group dev --constraint constraints.txt
	@touch $@

# Each in an environment of its own: they want other versions of OpenAI's client, and of each other.
.clients/%/.setup: tests/external/%.txt pyproject.toml
	$(PYTHON) -m venv .clients/$*
	.clients/$*/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	.clients/$*/bin/python -m pip install --quiet --group $* --constraint tests/external/$*.txt
	@touch $@

tests/external/node_modules/.setup: tests/external/package-lock.json
	npm ci --prefix tests/external --no-audit --no-fund --silent
	@touch $@

clients: .clients/clients/.setup .clients/clients-curator/.setup tests/external/node_modules/.setup ## Install the programs of others that the gateway is tried with (1.5 GB, some minutes)

# A file's tests stay in one process, because they share the servers that they start. More processes than cores: most of
# the time goes into waiting for servers, and of the longest tests most of all.
PYTEST := pytest --dist loadfile --no-loadscope-reorder --max-worker-restart 2

test: setup ## Run the tests, all but the longest (some minutes)
	$(PYTEST) -n 6 -m 'not slow'

test-slow: setup ## Run the longest tests alone: every reset point, kill matrices, generated answers
	$(PYTEST) -n 4 -m slow

test-all: setup ## Run all tests
	$(PYTEST) -n 6

# How much is disturbed, what decides it, and how many batches at least.
DISTURBANCES ?= 200
SEED ?= 1
BATCHES ?= 60

chaos: setup ## Kill at every step boundary, then disturb at random DISTURBANCES=200 times with SEED=1
	pytest -o faulthandler_timeout=900 tests/chaos/matrix.py
	python tests/chaos/soak.py --disturbances $(DISTURBANCES) --seed $(SEED) --batches $(BATCHES)

bench: setup ## Measure on a quiet machine, JSON into benchmarks/results (half an hour, 10 GB of disk)
	python benchmarks/batch_path.py --out
	python benchmarks/history.py --out
	python benchmarks/start.py --out
	python benchmarks/rate.py --out
	python benchmarks/stages.py --hot 12 --out
	python benchmarks/direct.py --out
	python benchmarks/cancel.py --out
	python benchmarks/scale.py --out
	python benchmarks/gateway.py --out
	python benchmarks/gateway_list.py --out

bench-size: setup ## Measure 10 thousand to a million rows, and a million with two kills (8 GB of disk)
	python benchmarks/size.py 10000 100000 1000000 --kill 2 --out

lint: setup ## Check style, types, floors, the Dockerfile and compose.yaml
	ruff check .
	ruff format --check .
	@# mypy finds a package by its folder's name, and this folder may be called anything.
	@mkdir -p .mypy_cache/root && ln -sfn ../.. .mypy_cache/root/durabatch
	MYPYPATH=.mypy_cache/root mypy
	lint-imports --no-logo
	hadolint deploy/Dockerfile
	check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml

format: setup ## Put the code into the common form
	ruff check --fix .
	ruff format .

schemas: setup ## Write docs/schemas from the models
	python docs/make_schemas.py
	python docs/make_tables.py

constraints: ## Write constraints.txt from what .venv holds now
	@{ echo '# The versions that Durabatch is tested with. Written by `make constraints`.'; \
	  $(VENV)/bin/python -m pip freeze --all --exclude-editable --exclude pip; } > constraints.txt

demo: setup ## Run a batch against the stand-in provider and see its results
	examples/demo.sh

clean: ## Remove .venv and whatever the tools left
	rm -rf $(VENV) .clients tests/external/node_modules build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
