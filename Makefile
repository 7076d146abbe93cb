# make demo   environment, install, the chromosome hold-out on real human data
# make test   environment, install, all tests
# Both use .venv and install nothing again until pyproject.toml or constraints.txt changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help demo test install check clean

help:
	@echo "make demo     set up .venv and run examples/human_ctcf.toml (report in runs/human_ctcf)"
	@echo "make test     set up .venv and run the tests"
	@echo "make install  set up .venv alone"
	@echo "make check    lint and types, as before a commit"
	@echo "make clean    remove .venv and caches; runs/ stays"

demo: $(INSTALLED)
	@echo "==> chromosome hold-out on real human data; resumes where it was stopped"
	$(BIN)/seqnorm holdout examples/human_ctcf.toml --resume

test: $(INSTALLED)
	@echo "==> tests"
	$(BIN)/python -m pytest

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $(PYTHON) is older; call make PYTHON=python3.11"; exit 1; }
	@echo "==> making the environment in $(VENV)"
	$(PYTHON) -m venv $(VENV)
	@echo "==> installing torch, then seqnorm with what its tests and checks need"
	$(BIN)/python -m pip install -c constraints.txt torch
	$(BIN)/python -m pip install -c constraints.txt -e ".[test,dev]"
	@touch $@

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
