# make demo   all seven steps on our own sample release, served on the loopback
# make test   the tests that need nothing but Python and a shell
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test lint system interop clean

help:
	@sed -n 's/^# make/make/p' Makefile

$(VENV)/dev: requirements.txt requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	touch $@

test: $(VENV)/dev
	$(BIN)/python -m pytest -m 'not system and not interop'

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
