# Everything here needs only Python 3.11-3.13, make and git; the first target that runs makes .venv.
#
#   make demo                       fine-tune a real model on this machine and show the gain
#   make test                       every test, on every supported Python at hand
#   make test ARGS="-k registry"    some tests, on .venv's Python only
#   make test PYTHON=python3.12     another Python for .venv
#   make prove                      check, test, and what only real kills can prove (minutes)

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

# python3 when it is in range, as a CPU wheel of torch may exist for that one alone; else the newest.
IN_RANGE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	"$$python" -c '$(IN_RANGE)' 2>/dev/null && echo "$$python" && break; done)

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# Most of the time is spent waiting for processes that load torch; each worker holds it too, so not too many.
IN_PARALLEL := -n auto --maxprocesses 4 --dist worksteal
export OMP_WAIT_POLICY ?= passive
export HF_HUB_OFFLINE ?= 1

.PHONY: help setup demo test prove check fix docs bench clean

help:  ## these lines
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Quick when nothing changed: the script compares a stamp in $(VENV) with what is asked for.
setup:  ## .venv with all that a developer needs
	@$(if $(PYTHON),,$(error no Python 3.11, 3.12 or 3.13 found; install one, or name it: make PYTHON=/path/to/python3.12))
	@$(PYTHON) .ci/environment.py $(VENV) train demo dev

demo:  ## fine-tune SmolLM2-135M on order e-mails, score it before and after (10 minutes on 2 cores)
	@$(if $(PYTHON),,$(error no Python 3.11, 3.12 or 3.13 found; install one, or name it: make PYTHON=/path/to/python3.12))
	@$(PYTHON) .ci/environment.py $(VENV) train demo
	$(BIN)/ftcloud demo $(ARGS)

test: setup  ## every test, none skipped; ARGS goes to pytest
	@$(BIN)/python .ci/system_packages.py tests/system-packages.txt
ifeq ($(strip $(ARGS)),)
	$(BIN)/python -m pytest $(IN_PARALLEL)
	@$(BIN)/python .ci/other_pythons.py $(IN_PARALLEL)
else
	$(BIN)/python -m pytest $(ARGS)
endif

check: setup  ## what CI checks besides the tests: lint, format, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy benchmarks/cli_startup.py benchmarks/trainer_throughput.py
	$(BIN)/mypy .ci/environment.py .ci/other_pythons.py .ci/system_packages.py
	$(BIN)/mypy --platform darwin -p ftcloud -p dispatcher -p providers
	$(BIN)/lint-imports

fix: setup  ## let ruff repair and format what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

prove: check test  ## all that CI checks, then kills of real processes; PROVE_SEED repeats, PROVE_RUNS adds
	$(BIN)/python -m pytest $(IN_PARALLEL) tests/prove

docs: setup  ## the tests that hold documents and code together
	$(BIN)/python -m pytest -k "doc or docs" $(ARGS)

bench:  ## start-up of the command line; our trainer against its peers (45 minutes on 2 cores)
	@$(if $(PYTHON),,$(error no Python 3.11, 3.12 or 3.13 found; install one, or name it: make PYTHON=/path/to/python3.12))
	@$(PYTHON) .ci/environment.py $(VENV) train demo dev bench
	$(BIN)/python benchmarks/cli_startup.py
	$(BIN)/python benchmarks/trainer_throughput.py $(ARGS)

clean:  ## remove the environments and caches that these targets make
	rm -rf .venv .venv-3.* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
