# Needs python3 (3.11 or newer) with pip, and make. Everything else comes from the package registry, by uv.lock.
PYTHON ?= python3
UV_VERSION = 0.13.8
UV = PYTHONPATH=.boot UV_PYTHON_DOWNLOADS=never $(PYTHON) -m uv
BIN = .venv/bin

.PHONY: setup demo run test lint docs drill bench fuzz referees

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

# Two processes: the machines it runs on have two cores. The small drill, real processes under fire, has them to itself.
test: setup
	$(BIN)/pytest -n 2
	$(BIN)/pytest -m drill

drill: setup
	$(BIN)/python -m drill

bench: setup
	$(BIN)/python -m bench

# A million inputs for the address validator; the test suite runs a few thousand.
fuzz: setup
	$(BIN)/python -m bench.fuzz_addresses --count 1000000

# Other libraries on the same addresses, in an environment of their own. One that cannot be installed is left out.
referees: setup .venv-referees/.ready
	$(BIN)/python -m bench.referees

.venv-referees/.ready: bench/referees.txt
	@$(UV) venv --quiet --clear --python $(PYTHON) .venv-referees
	@$(UV) pip sync --quiet --python .venv-referees --require-hashes bench/referees.txt || \
	  for one in $$(sed -n 's/^\([a-z][a-z0-9-]*[=<]*[0-9.]*\).*/\1/p' bench/referees.in); do \
	    $(UV) pip install --quiet --python .venv-referees --constraint bench/referees.txt $$one || echo "cannot be installed: $$one"; \
	  done
	@touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python docs/make_lifecycle.py --check
	$(BIN)/python docs/make_errors.py --check

docs: setup
	$(BIN)/python docs/make_lifecycle.py
	$(BIN)/python docs/make_errors.py
