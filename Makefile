# From a fresh clone: `make train` does the main job, `make test` runs every check. Both make their own environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: train test check bench docs clean environment
.DEFAULT_GOAL := train

# An environment that does not work is made anew: one of too old a Python, or one whose making was interrupted.
RECENT := import sys; sys.exit(sys.version_info < (3, 11))
WORKS := $(shell $(BIN)/python -c '$(RECENT)' 2>/dev/null && $(BIN)/python -m pip --version 2>/dev/null)
ifeq ($(WORKS),)
$(VENV)/core $(VENV)/dev: environment
endif

# The constraints pin the version of every package. Which build of torch that is, the index decides: see README.md.
$(VENV)/core: pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/dev: pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(VENV)/core $@

environment:
	@$(PYTHON) -c '$(RECENT)' || { echo "found $$($(PYTHON) --version 2>&1); expected Python 3.11 or newer; \
	name one: make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)

train: $(VENV)/core
	$(BIN)/thirtytwo train

test: check
	CUDA_VISIBLE_DEVICES= $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder  # on the CPU: there are no two devices to mix up
	$(BIN)/python -m pytest -q tests/test_gpu.py

check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/dev
	$(BIN)/python benchmarks/classic_vs_keras.py

docs: $(VENV)/dev
	$(BIN)/python -m docs.generate

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
