# Targets that need Python packages install them in .venv on first use.
# `make help` lists the targets; `make test ARGS="-k maze"` passes arguments on.

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-thorough test-slow lint types docs benchmark test-versions clean

# The first Python that is recent enough; `make PYTHON=/path/to/python3.12 test` uses another.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$python && break; done)

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input -qq
WORKERS ?= 2
REPORT := report/tests.xml

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(INSTALLED)  ## train an agent on generated mazes and evaluate it on held-out mazes
	@$(BIN)/python scripts/demo.py

PYTEST = $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder --junitxml=$(REPORT)

test: $(READY)  ## the tests that run within minutes on a CPU
	@echo "pytest, $(WORKERS) workers; the results are also written to $(REPORT)"
	@$(PYTEST) $(ARGS)

test-all: $(READY)  ## those tests and the thorough ones, which take longer
	@$(PYTEST) -m "not slow" $(ARGS)

test-thorough: $(READY)  ## only the thorough tests, which CI runs after `make test`
	@$(PYTEST) -m "thorough and not slow" $(ARGS)

test-slow: $(READY)  ## learning curves: tests that each train for minutes
	@$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(READY)  ## check style and format with ruff
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(READY)  ## check types with pyright
	@$(BIN)/pyright

docs: $(READY)  ## build the documentation site in site/; warnings are errors
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --clean $(ARGS)

benchmark: $(INSTALLED)  ## measure the speed of stepping and training on this machine
	@$(BIN)/python scripts/benchmark.py $(ARGS)

test-versions:  ## run the tests on the oldest and newest supported versions, in clean environments
	@scripts/check_versions.sh $(ARGS)

clean:  ## remove environments, caches and builds; keep runs/ and report/
	@rm -rf $(VENV) .venv-* build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .jax_cache
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# The lock file is made with Python 3.11 and works for 3.11 to 3.13; other versions of Python get the
# newest packages that pyproject.toml allows. The demo needs only rlgen; the many packages for tests
# and the site are installed when a target needs them.
define install
	@$(PIP) install -e "$(1)" -c requirements.lock || { \
	  echo "requirements.lock cannot be used here; installing the newest versions that pyproject.toml allows"; \
	  $(PIP) install -e "$(1)"; }
	@touch $@
endef

$(READY): $(INSTALLED)
	@echo "Installing the packages for tests, checks and the site (once, about a minute)"
	$(call install,.[dev])

$(INSTALLED): pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { \
	  echo "rlgen needs Python 3.11 or newer and found none; make PYTHON=/path/to/python $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c '$(NEW_ENOUGH)' || { \
	  echo "rlgen needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) has no venv; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version) (once, about a minute)"
	@$(BIN)/python -c '$(NEW_ENOUGH)' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(call install,.)
