# Needs python3 (3.11 or newer) with pip, and make. Everything else comes from the package registry, by uv.lock.
PYTHON ?= python3
UV_VERSION = 0.13.8
UV = PYTHONPATH=.boot UV_PYTHON_DOWNLOADS=never $(PYTHON) -m uv
BIN = .venv/bin

.PHONY: setup demo run test lint docs drill bench

setup: .venv/.ready

.venv/.ready: pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	@test -d .boot/uv || $(PYTHON) -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target .boot uv==$(UV_VERSION)
	@$(UV) sync --quiet --frozen --python $(PYTHON)
	@touch $@

demo: setup
	$(BIN)/swap demo

run: setup
	$(BIN)/swap up

# Two processes: the machines it runs on have two cores.
test: setup
	$(BIN)/pytest -n 2

drill: setup
	$(BIN)/python -m drill

bench: setup
	$(BIN)/python -m bench

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python docs/make_lifecycle.py --check

docs: setup
	$(BIN)/python docs/make_lifecycle.py
