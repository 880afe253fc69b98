# make demo | test | coverage | test-oldest | test-latest | lint | docs | bench | clean
# Needs python3 >= 3.11; the rest goes into $(VENV), in the versions that constraints.txt names.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py constraints.txt \
	$(shell find csrc -type f)
BUILD := pip setuptools wheel ninja packaging
# a module is compiled when it is first imported: most never are
QUIET := -qq --no-compile
# what a release of a dependency may break: loading, generation, speculation, evaluation
CORE := $(wildcard tests/test_loading*.py tests/test_models*.py tests/test_generation*.py \
	tests/test_prompts*.py tests/test_stream*.py tests/test_terminal*.py \
	tests/test_speculation.py tests/test_speculation_[bglt]*.py tests/test_speculation_s[at]*.py \
	tests/test_evals_re*.py tests/test_ops_extension.py)

.PHONY: install demo test coverage test-oldest test-latest lint docs bench clean

install: $(VENV)/installed

# torch first: the extension is built against the torch that will load it
$(VENV)/installed: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $(QUIET) --constraint constraints.txt --upgrade $(BUILD) torch
	$(BIN)/pip install $(QUIET) --constraint constraints.txt --no-build-isolation --editable ".[dev]"
	touch $@

demo: install
	$(BIN)/dlmdecode demo

test: install
	$(BIN)/python -m pytest --numprocesses auto

# which lines the tests run
coverage: install
	$(BIN)/python -m pytest --numprocesses auto --cov=dlmdecode --cov=samplers --cov=evals --cov-report=term

# the oldest releases that pyproject.toml allows
test-oldest: $(VENV)-oldest/installed
	$(MAKE) test-core VENV=$(VENV)-oldest

$(VENV)-oldest/installed: pyproject.toml
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install $(QUIET) --upgrade $(BUILD)
	$(@D)/bin/pip install $(QUIET) $$($(@D)/bin/python tests/oldest.py)
	touch $@

# the newest releases that pyproject.toml allows
test-latest: $(VENV)-latest/installed
	$(MAKE) test-core VENV=$(VENV)-latest

$(VENV)-latest/installed: pyproject.toml
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install $(QUIET) --upgrade $(BUILD) torch transformers
	touch $@

# what both of them begin with
.PHONY: environments
environments: $(VENV)-oldest/installed $(VENV)-latest/installed

# a wheel, so that the checkout keeps the extension it has, or WHEEL=FILE.whl: one that was built
# with an older torch; warnings of old releases are no failure; csrc/compile_cuda.sh has the GPU's
.PHONY: test-core
test-core:
	test -n "$(WHEEL)" || rm -rf build $(VENV)/wheel
	test -n "$(WHEEL)" || USE_CUDA=0 $(BIN)/pip wheel -qq --no-deps --no-build-isolation --wheel-dir $(VENV)/wheel .
	$(BIN)/pip install $(QUIET) --force-reinstall --no-deps $(or $(WHEEL),$(VENV)/wheel/*.whl)
	$(BIN)/pip install $(QUIET) "$$(ls $(or $(WHEEL),$(VENV)/wheel/*.whl))[test]"
	$(BIN)/pip list | grep -E "^(torch|transformers|numpy) "
	cd tests && $(abspath $(BIN))/pytest --numprocesses auto -W default -o pythonpath= $(notdir $(CORE))

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPY=$(abspath $(BIN))/mypy tests/types.sh

# the site, under build/docs; a warning is an error
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

bench: install
	$(BIN)/dlmdecode bench samplers --output benchmarks/results/samplers.md

clean:
	rm -rf $(VENV) $(VENV)-oldest $(VENV)-latest build *.egg-info dlmdecode/*.so \
		dlmdecode/not_built.txt .pytest_cache .mypy_cache .ruff_cache .hypothesis
