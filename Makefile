# What people and CI run. Needs python3 (3.11 or newer) with pip, bash and make: those of macOS, 3.2 and 3.81, will do.
# Browsers and load generators come from the system's packages, because their own installers fetch binaries unlocked.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
bin := .venv/bin
pip := $(PYTHON) -m pip --python $(bin)/python --disable-pip-version-check -qq

.PHONY: help run install test lint bench translations chaos coverage lock
help:  ## this list
	@awk -F ':.*  ## ' '/^[a-z]+:.*  ## / { printf "  make %-13s%s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: install  ## start with a demo on http://127.0.0.1:$PORT (8000); DEMO=0 leaves the demo out
	@exec $(bin)/router run

install: .venv/.package  ## only make .venv, with the package in it, so that .venv/bin/router works

# Debian's packages that tests need. On macOS, tests without their program are left out.
programs := $(if $(filter Darwin,$(shell uname)),,browser load-generator)
test: lint .venv/.dev $(programs)  ## everything: lint, then the tests with real PostgreSQL, gunicorn and browser
	@$(bin)/python -m pytest $(ARGS)

lint: .venv/.dev  ## ruff and mypy, as for Linux and as for macOS
	@$(bin)/ruff check --quiet .
	@$(bin)/ruff format --quiet --check . || { echo "Not formatted: run $(bin)/ruff format" >&2; exit 1; }
	@$(bin)/mypy --no-error-summary & linux=$$!; \
	$(bin)/mypy --no-error-summary --platform darwin --cache-dir .mypy_cache/darwin || { wait; exit 1; }; \
	wait $$linux

bench: .venv/.dev load-generator  ## benchmarks with limits; ARGS="--against COMMIT" compares with that commit
	@$(bin)/python -m bench $(ARGS)

translations: .venv/.package  ## collect the pages' texts, renew and compile the catalogs
	@$(bin)/python -m router.admin.translate

chaos: .venv/.dev compiler pooler  ## faults on purpose with calls going on; writes the table of docs/reliability.md
	@$(bin)/python -m chaos --write $(ARGS)

coverage: .venv/.dev $(filter browser,$(programs))  ## the tests once more, with the lines and branches that they leave out
	@$(bin)/python -m pytest --cov --cov-report=term $(ARGS)

# pip-compile reads its options from pyproject.toml. This machine's own pip settings must not reach the lock.
compile := env -u PIP_FIND_LINKS -u PIP_EXTRA_INDEX_URL -u PIP_INDEX_URL PIP_CONFIG_FILE=/dev/null \
	$(bin)/pip-compile --quiet --build-deps-for=editable $(ARGS) pyproject.toml
lock: .venv/.dev  ## renew the locks from pyproject.toml; ARGS=--upgrade takes newer versions
	@$(compile) --output-file=requirements.txt
	@$(compile) --output-file=requirements-dev.txt --extra=dev --constraint=requirements.txt

# ---- .venv: filled again only when a lock has changed. The locks are whole, so pip installs what they say and nothing
# else: asked to resolve, older ones take `coverage[toml]` for another package than the pinned `coverage` and refuse.

$(bin)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "python3 is too old: 3.11 or newer is needed, named so: make PYTHON=python3.13")'
	@$(PYTHON) -m venv --without-pip .venv

.venv/.runtime: requirements.txt $(bin)/python
	@echo "Installing the locked dependencies into .venv"
	@$(pip) install --require-hashes --no-deps -r requirements.txt
	@touch $@

# The build backend is locked too, so that nothing unlocked is fetched.
.venv/.package: pyproject.toml .venv/.runtime
	@$(pip) install --no-index --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.dev: requirements-dev.txt .venv/.package
	@echo "Installing what the tests need into .venv"
	@$(pip) install --require-hashes --no-deps -r requirements-dev.txt
	@touch $@

# ---- programs of the system, found on PATH, or installed where we may

# $(call need,PROGRAM,PACKAGES)
define need
	@command -v $(1) >/dev/null && exit; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing $(2)"; \
		{ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(2); } >/dev/null; \
	else \
		echo "$(1) is missing. Install it, on Debian: sudo apt-get install $(2)" >&2; exit 1; \
	fi
endef

.PHONY: browser load-generator compiler pooler
browser:
	$(call need,chromium,chromium fonts-liberation)

load-generator:
	$(call need,wrk,wrk)

compiler:
	$(call need,cc,gcc libc6-dev)

pooler:
	$(call need,pgbouncer,pgbouncer)
