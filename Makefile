# make demo | test | lint | bench | clean. Needs python3 >= 3.10; the rest goes into $(VENV).
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(wildcard csrc/*.cpp csrc/*.h csrc/*/*.cpp csrc/*/*.h csrc/*/*.cu)

.PHONY: install demo test lint bench clean

install: $(VENV)/installed

# torch first: the extension is built against the torch that will load it
$(VENV)/installed: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -qq --upgrade pip "setuptools>=77" wheel ninja $(TORCH)
	$(BIN)/pip install -qq --no-build-isolation --editable ".[dev]"
	touch $@

demo: install
	$(BIN)/dlmdecode demo

test: install
	$(BIN)/python -m pytest --numprocesses auto

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	$(BIN)/dlmdecode bench samplers --output benchmarks/results/samplers.md

clean:
	rm -rf $(VENV) build *.egg-info dlmdecode/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
