# Needs python3 (3.11 or newer) with pip, and make. Everything else comes from the package registry, by uv.lock.
PYTHON ?= python3
UV_VERSION = 0.13.8
UV = PYTHONPATH=.boot UV_PYTHON_DOWNLOADS=never $(PYTHON) -m uv
BIN = .venv/bin

.PHONY: help setup demo run check test lint docs coverage drill drill-small bench fuzz referees

help: ## this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

setup: .venv/.ready ## .venv from the lock file

.venv/.ready: pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	@test -d .boot/uv || $(PYTHON) -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target .boot uv==$(UV_VERSION)
	@$(UV) sync --quiet --frozen --python $(PYTHON)
	@touch $@

demo: setup ## one swap from quote to payout, on real processes
	$(BIN)/swap demo

run: setup ## keep the service up, with the sandbox as its upstream
	$(BIN)/swap up

# The answer to "is it right?" in less than a minute: everything that needs no database, server or process.
check: lint ## lint, types and every pure test
	$(BIN)/pytest -n 2 -m pure

# Two processes: the machines it runs on have two cores.
test: setup ## every test; on PostgreSQL as well where TEST_DATABASE_URL names a server
	$(BIN)/pytest -n 2

# To look at, not to pass. What a process of its own runs is not counted.
coverage: setup ## branch coverage per folder, by every test
	$(BIN)/pytest -n 2 --cov --cov-report=
	@for folder in domain orders watching push store web; do \
	  printf '%-10s %3s %%\n' $$folder "$$($(BIN)/coverage report --format=total --include="swap/$$folder/*")"; \
	done

# Real processes under fire have the machine to themselves.
drill-small: setup ## the small drill: 60 orders, two minutes
	$(BIN)/pytest -m drill

drill: setup ## the service under a misbehaving upstream, killed and cut off; then an audit (8 minutes)
	$(BIN)/python -m drill

bench: setup ## benchmarks, as tables
	$(BIN)/python -m bench

# A million inputs for the address validator; the test suite runs a few thousand.
fuzz: setup ## the address validator under a million odd inputs
	$(BIN)/python -m bench.fuzz_addresses --count 1000000

# Other libraries on the same addresses, in an environment of their own. One that cannot be installed is left out.
referees: setup .venv-referees/.ready ## the address validator beside eight other libraries
	$(BIN)/python -m bench.referees

.venv-referees/.ready: bench/referees.txt
	@$(UV) venv --quiet --clear --python $(PYTHON) .venv-referees
	@$(UV) pip sync --quiet --python .venv-referees --require-hashes bench/referees.txt || \
	  for one in $$(sed -n 's/^\([a-z][a-z0-9-]*[=<]*[0-9.]*\).*/\1/p' bench/referees.in); do \
	    $(UV) pip install --quiet --python .venv-referees --constraint bench/referees.txt $$one || echo "cannot be installed: $$one"; \
	  done
	@touch $@

lint: setup ## ruff, mypy, the floors of the architecture, the lock file, generated documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(UV) lock --quiet --check
	$(BIN)/python docs/make_lifecycle.py --check
	$(BIN)/python docs/make_errors.py --check

docs: setup ## write the generated documents
	$(BIN)/python docs/make_lifecycle.py
	$(BIN)/python docs/make_errors.py
