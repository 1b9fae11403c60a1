# The whole life of a checkout: make run, make test. Everything else serves these two.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# Compiled once and kept, or each of hundreds of processes in the tests would compile all again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run setup test flows-on-replicas chaos fuzz lint check-style check-types check-layers check-security bench docs docs-parts typescript-types lock clean

run: $(VENV)/.run-ready  ## start the service with its sandbox
	@$(BIN)/taskhook dev

setup: $(VENV)/.dev-ready  ## the virtual environment, with what the tests need

test: setup  ## linters, type checker, layers, all tests
	@$(MAKE) --no-print-directory --jobs 2 --output-sync lint
	@$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

flows-on-replicas: setup  ## the flows again, each service being two webs and two workers on PostgreSQL
	@FLOWS_ON=replicas $(BIN)/python -m pytest -n 2 --dist loadfile -rs tests/flows

chaos: setup  ## kills and faults at random, for long: make chaos OPTIONS="--rounds 50 --seed 7"
	@$(BIN)/python -m tests.chaos $(OPTIONS)

fuzz: setup  ## the property tests, longer and with new examples
	@FUZZ=$${FUZZ:-20} $(BIN)/python -m pytest -n 2 --dist loadfile --timeout 1800 tests/fuzz tests/core tests/store/test_machine.py tests/providers/test_any_bytes.py

lint: check-style check-types check-layers check-security  ## what can be said without running it
check-style: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
check-types: setup
	@$(BIN)/mypy
check-layers: setup
	@$(BIN)/lint-imports
check-security: setup
	@$(BIN)/bandit --quiet --configfile pyproject.toml --recursive service && $(BIN)/python scripts/audit.py

bench: setup  ## all figures of docs/performance.md beside their yardsticks, in some minutes: make bench OPTIONS="--only callbacks"
	@$(BIN)/python -m bench.run $(OPTIONS)

docs: setup  ## this documentation as a site, in site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir site
	@echo "Look at it: $(BIN)/python -m http.server --bind 127.0.0.1 --directory site"

docs-parts: setup  ## renew the generated parts of the pages
	@$(BIN)/python -m scripts.site.made

typescript-types: setup  ## renew the types of the TypeScript client from the API (needs npm)
	@$(BIN)/python -c "import msgspec, service.web.openapi as o, service.web.routes as r; print(msgspec.json.encode(o.build_document(r.OPERATIONS)).decode())" > clients/typescript/openapi.json
	@cd clients/typescript && npm ci --no-audit --no-fund --silent && npm run --silent generate

lock:  ## renew the lock files (needs uv)
	printf 'hatchling\n' | uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --upgrade - -o requirements-build.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade pyproject.toml -o requirements.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade --group dev pyproject.toml -o requirements-dev.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Taskhook needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run-ready: requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "Setting up $(VENV) ..."
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps -e .
	@touch $@

$(VENV)/.dev-ready: requirements-dev.lock pyproject.toml clients/python/pyproject.toml | $(VENV)/bin/python
	@echo "Setting up $(VENV) for development ..."
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@$(PIP) install --no-deps -e . -e clients/python
	@scripts/ensure-postgres
	@scripts/ensure-chromium
	@scripts/ensure-nginx
	@touch $@ $(VENV)/.run-ready
