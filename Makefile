# Everything that a user or contributor types. Needs git, make, python3 (3.11-3.13, with venv) and PyPI; scripts/uv brings the rest.
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-postgres dev test test-faults test-slow bench-loads bench-imports bench-provision check format types layers docs reference test-oldest test-older-dbt lock clean

UV := scripts/uv
RUN := $(UV) run --no-sync
WORKERS ?= 4
PORT ?= 3000
EXTRAS ?=
OPTIONS ?=
export PYTHON
# Many containers set it. Then each of pytest's processes would compile hypothesis and all tests anew, for five seconds.
docs test test-faults test-slow: export PYTHONDONTWRITEBYTECODE =

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

setup: ## Install from uv.lock into .venv (EXTRAS="--extra gs" for more)
	@$(UV) sync --frozen --quiet --compile-bytecode $(EXTRAS)
	@$(RUN) python -m compileall -q fabric_assets

demo: setup ## Load, model and test five demo tenants, and show what came of them
	@$(RUN) fabric demo

demo-postgres: setup ## The same on Postgres, a role and schemas per tenant; on a server of its own, or DEMO_POSTGRES_URL=postgresql://...
	@$(RUN) python -m scripts.demo_postgres $(OPTIONS)

dev: setup ## Dagster's UI on 127.0.0.1:3000 with the daemon, on the demo's data (PORT=3001 for another port)
	@PORT=$(PORT) $(RUN) python scripts/dev.py

test: setup ## All tests (WORKERS=2 for fewer at a time)
	@$(RUN) pytest -n $(WORKERS) --durations 30

test-faults: setup ## Faults at full length: 50 seeds of random kills for each destination (FABRIC_TEST_SEED=17 plays one again)
	@FABRIC_TEST_SEEDS=50 $(RUN) pytest -n $(WORKERS) tests/faults tests/offboarding/test_kills.py

test-slow: setup ## Scale, browser, upgrade and attack tests at full length, beside those of make test-faults
	@FABRIC_TEST_SEEDS=50 $(RUN) pytest -n $(WORKERS) $$(grep -rlE "tests.support.lengths import|tests.support import lengths" tests --include="test_*.py" | grep -vE "^tests/(faults|offboarding/test_kills)")

bench-loads: setup ## Loads against a COPY pipe, dlt and Singer; takes most of an hour (OPTIONS="--rows 200000" for less)
	@$(RUN) python -m benchmarks.loads $(OPTIONS)

bench-imports: setup ## Imports against DuckDB's read_csv, of 2 GB, of 5,000 files (OPTIONS="--part rows" for less)
	@$(RUN) python -m benchmarks.imports $(OPTIONS)

bench-provision: setup ## Roles and schemas of 1,000 tenants on one Postgres (OPTIONS="--tenants 100" for less)
	@$(RUN) python -m benchmarks.provision $(OPTIONS)

check: setup ## What a commit must pass: format, lint, types, import layers, docs
	@$(MAKE) -j2 --keep-going --no-print-directory format types layers docs

format:
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) sqlfmt --quiet --check dbt_project tests/transform/project tests/transform/jaffle

types:
	$(RUN) pyright

layers:
	$(RUN) lint-imports

docs:
	$(RUN) pytest -q tests/test_architecture.py tests/test_contributing.py tests/test_docs.py tests/test_project.py tests/test_prose.py

test-oldest: ## Definitions and end-to-end tests on the oldest versions that pyproject.toml admits, with the extra embedded-elt
	@scripts/test-oldest

test-older-dbt: ## What differs between the dbt-core 1.12 of uv.lock and the 1.11 that pip gets, on 1.11
	@scripts/test-oldest tests/transform/test_selection.py tests/transform/test_freshness.py \
		tests/transform/test_build.py::test_two_tenants_builds_stay_in_their_own_schemas \
		tests/transform/test_build.py::test_an_incremental_model_adds_and_a_full_refresh_rebuilds_and_vars_reach_the_models

reference: ## Write the generated tables of docs/ anew from the code
	$(RUN) python -m scripts.reference

lock: ## Write uv.lock and requirements-oldest.txt anew after a change of pyproject.toml
	$(UV) lock
	$(UV) pip compile pyproject.toml --extra embedded-elt --group dev --upgrade --resolution lowest-direct --universal --python-version 3.11 \
		--quiet --no-annotate --custom-compile-command "make lock" --output-file requirements-oldest.txt

clean: ## Remove environments, caches and the demo's data
	rm -rf .venv .venv-oldest .uv .fabric published .pytest_cache .ruff_cache .hypothesis dist dbt_project/target dbt_project/logs
