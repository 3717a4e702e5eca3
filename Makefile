# make help lists the targets. A machine needs Python 3.11 or later and make; everything else goes into .venv.

PYTHON ?= python3
# Where torch comes from, when not from PyPI; for the CPU build: make TORCH_INDEX=https://download.pytorch.org/whl/cpu ...
TORCH_INDEX ?=
# Folder of the published measurements that some bundled models are fitted to; without it they are left as they are.
MEASUREMENTS ?=
# Folder and options of the reproduction; REPRODUCE_FLAGS= runs it as published (days on two cores).
REPRODUCE_OUTPUT ?= reproduction
REPRODUCE_FLAGS ?= --quick
PYTEST_FLAGS ?= -n 2 --dist worksteal

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
SOURCES := calib datasets benchmarks tests fitted_models docs

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install quickstart test hostile reproduction reproduce lint type format coverage docs models benchmarks clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(VENV)/.calib  ## make .venv and install calib in it, with the tested versions

quickstart: install  ## a device model, a card, a network and a report from shipped raw data
	$(BIN)/python -m calib.quickstart

test: lint type  ## style, types and tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_FLAGS)

hostile: $(VENV)/.calib-dev  ## 24,000 damaged files over all readers (minutes); CALIB_SEED chooses others
	CALIB_MUTANTS=$${CALIB_MUTANTS:-24000} $(BIN)/python -m pytest $(PYTEST_FLAGS) -s tests/test_hostile.py

lint: $(VENV)/.calib-dev  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(VENV)/.calib-dev  ## pyright
	$(BIN)/pyright

format: $(VENV)/.calib-dev  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reproduction: $(VENV)/.calib-dev  ## minutes of training on MNIST against the stated results (CALIB_DATA: its folder)
	$(BIN)/python -m pytest -m reproduction

reproduce: install  ## Joksas et al. 2022 beside ours (CALIB_DATA: folder of MNIST); REPRODUCE_FLAGS= for the published protocol
	$(BIN)/calib reproduce joksas2022 -o $(REPRODUCE_OUTPUT) $(REPRODUCE_FLAGS)

coverage: $(VENV)/.calib-dev  ## tests with line and branch coverage (htmlcov/index.html)
	$(BIN)/python -m pytest $(PYTEST_FLAGS) --cov --cov-report=term --cov-report=html

docs: $(VENV)/.calib-docs  ## the documentation as HTML (docs/_build/index.html)
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build

models: install  ## make datasets/ and fitted_models/ again (MEASUREMENTS: folder of the published measurements)
	$(BIN)/python datasets/generate.py
	$(BIN)/python fitted_models/build.py
ifneq ($(MEASUREMENTS),)
	$(BIN)/python fitted_models/measured.py "$(MEASUREMENTS)"
endif

benchmarks: install  ## side-by-side timings
	$(BIN)/python benchmarks/fitting.py
	$(BIN)/python benchmarks/cycles.py
	$(BIN)/python benchmarks/crossbar.py
	$(BIN)/python benchmarks/lines.py

clean:  ## remove .venv and everything that was made
	rm -rf $(VENV) build dist htmlcov .coverage coverage.xml .pytest_cache .ruff_cache .hypothesis docs/_build quickstart
	find $(wildcard $(SOURCES)) -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@command -v "$(PYTHON)" >/dev/null || { echo "calib needs Python 3.11 or later, but there is no '$(PYTHON)';" \
	  "give one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "calib needs Python 3.11 or later, but" \
	  "'$(PYTHON)' is $$("$(PYTHON)" --version 2>&1); give another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	"$(PYTHON)" -m venv --clear $(VENV)

$(VENV)/.calib: pyproject.toml constraints.txt | $(BIN)/python
ifneq ($(TORCH_INDEX),)
	$(PIP) install --no-deps --index-url "$(TORCH_INDEX)" "$$(grep '^torch==' constraints.txt)"
endif
	$(PIP) install -c constraints.txt -e '.[fast]'
	@touch $@

$(VENV)/.calib-%: $(VENV)/.calib
	$(PIP) install -c constraints.txt -e '.[$*]'
	@touch $@
