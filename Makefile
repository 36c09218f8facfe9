# Each target makes .venv and installs into it first, once; again when setup.cfg or pyproject.toml change.
PYTHON ?= python3
# Processes of the tests: one thread each (tests/conftest.py), a file's tests in one process.
WORKERS ?= 2
BIN := .venv/bin

.PHONY: demo test test-slow mutation lint docs clean
.DELETE_ON_ERROR:

demo: .venv/.installed
	$(BIN)/diffpref demo --output runs/demo

test: .venv/.installed
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile -m "not slow and not gpu" --durations=15

test-slow: .venv/.installed
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile -m "slow and not gpu" --durations=15

# Break every objective in every small way; fails where the tests notice fewer than 90 % (a few minutes).
mutation: .venv/.installed
	$(BIN)/python tests/support/mutation.py --processes $(WORKERS) --markdown

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(CURDIR)/$(BIN):$$PATH" .ci/types

# Reference pages are made from the code first (docs/reference.py); a warning fails the build, which needs no network.
docs: .venv/.installed
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "docs: build/docs/index.html"

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis runs/demo docs/generated

.venv/.installed: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@
