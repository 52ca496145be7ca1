# Every target that needs Python packages sets them up in .venv by itself, once.
# `make help` lists the targets; `make test ARGS="-k maze"` passes arguments on.

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-thorough test-slow lint types docs benchmark test-versions clean

# The first Python that is new enough; `make PYTHON=/path/to/python3.12 test` chooses another.
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

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(INSTALLED)  ## train an agent on generated mazes, evaluate it on mazes it never saw
	@$(BIN)/python scripts/demo.py

PYTEST = $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --junitxml=$(REPORT)

test: $(READY)  ## the tests, in minutes (CPU): every component's laws, and whatever is quick
	@echo "pytest, $(WORKERS) workers; the results are also written to $(REPORT)"
	@$(PYTEST) $(ARGS)

test-all: $(READY)  ## the same and the thorough tests, which take longer
	@$(PYTEST) -m "not slow" $(ARGS)

test-thorough: $(READY)  ## the thorough tests alone, as CI runs them after `make test`
	@$(PYTEST) -m "thorough and not slow" $(ARGS)

test-slow: $(READY)  ## learning curves: tests that train for minutes each
	@$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(READY)  ## ruff: style and format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(READY)  ## pyright
	@$(BIN)/pyright

docs: $(READY)  ## the documentation site, into site/; warnings are errors
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --clean $(ARGS)

benchmark: $(INSTALLED)  ## speed of stepping and training on this machine
	@$(BIN)/python scripts/benchmark.py $(ARGS)

test-versions:  ## the suite on the oldest and newest supported versions, from clean environments
	@scripts/check_versions.sh $(ARGS)

clean:  ## remove environments, caches and builds; runs/ and report/ stay
	@rm -rf $(VENV) .venv-* build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .jax_cache
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# The lock is made on Python 3.11 and fits 3.11 to 3.13; elsewhere the newest admitted versions do.
# The demo needs rlgen alone; tests and the site bring much more, which is installed when it is needed.
define install
	@$(PIP) install -e "$(1)" -c requirements.lock || { \
	  echo "requirements.lock does not fit here; installing the newest versions that pyproject.toml admits"; \
	  $(PIP) install -e "$(1)"; }
	@touch $@
endef

$(READY): $(INSTALLED)
	@echo "Adding what tests, checks and the site need, about a minute, once"
	$(call install,.[dev])

$(INSTALLED): pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { \
	  echo "rlgen needs Python 3.11 or newer and found none; make PYTHON=/path/to/python $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c '$(NEW_ENOUGH)' || { \
	  echo "rlgen needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) has no venv; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version), about a minute, once"
	@$(BIN)/python -c '$(NEW_ENOUGH)' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(call install,.)
