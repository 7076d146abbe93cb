# make demo   environment, install, the chromosome hold-out on real human data
# make test   environment, install, all tests
# All use .venv and install again only when pyproject.toml, constraints.txt or a kernel changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Tests at a time; each holds torch in memory.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(4, os.cpu_count()))')
KERNELS := CMakeLists.txt $(wildcard $(foreach place,seqnorm/backends/native/src data_tools/kernels/src,\
  $(addprefix $(place)/,*.cpp *.h CMakeLists.txt)))

.PHONY: help demo test test-gpu bench-cpu bench-gpu install check clean

help:
	@echo "make demo     set up .venv and run examples/human_ctcf.toml (report in runs/human_ctcf)"
	@echo "make test     set up .venv and run the tests"
	@echo "make test-gpu   run the tests that need a CUDA device (skipped, with a word, without one)"
	@echo "make bench-cpu  measure the norms on this processor (benchmarks/norms_cpu.md)"
	@echo "make bench-gpu  measure the norms on a CUDA device (benchmarks/norms_gpu.md)"
	@echo "make install  set up .venv alone"
	@echo "make check    lint and types, as before a commit"
	@echo "make clean    remove .venv and caches; runs/ stays"

demo: $(INSTALLED)
	@echo "==> chromosome hold-out on real human data; resumes where it was stopped"
	$(BIN)/seqnorm holdout examples/human_ctcf.toml --resume

test: $(INSTALLED)
	@echo "==> tests"
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

test-gpu: $(INSTALLED)
	@echo "==> tests on a CUDA device"
	$(BIN)/python -m pytest -m gpu

bench-cpu: $(INSTALLED)
	$(BIN)/python benchmarks/norms_cpu.py

bench-gpu: $(INSTALLED)
	$(BIN)/python benchmarks/norms_gpu.py

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt $(KERNELS)
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
