PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev

.PHONY: quickstart test check slow clean

quickstart: $(INSTALLED)  ## install, run the main job on the embedded digits, say where the report is
	$(BIN)/ddnl sweep sweeps/quickstart.yaml

test: $(INSTALLED_DEV)  ## the default tests (under 12 minutes on 2 cores)
	$(BIN)/pytest -q
	$(BIN)/pytest -q -m "own_process and not slow"

slow: $(INSTALLED_DEV)  ## every test
	$(BIN)/pytest -q -m "not own_process"
	$(BIN)/pytest -q -m own_process

check: $(INSTALLED_DEV)  ## static checks: style, types, one-way imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "ddnl-ray needs Python 3.11 or newer; run make with PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet -e .
	touch $@

$(INSTALLED_DEV): pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) runs
