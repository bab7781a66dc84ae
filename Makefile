# The commands of the house. `make up` and `make test` need nothing but Debian or Ubuntu with Python 3.11 or later.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGE := pyproject.toml requirements/build.in

.DEFAULT_GOAL := help
.PHONY: help up test chaos check lint types imports unit format bench soak services requirements

help:
	@echo "make up            start the platform with 12 simulated devices"
	@echo "make test          run all tests, installing what they need (JOBS=0: one after another)"
	@echo "make chaos         kill and cut, again and again, and see that the tests can fail; some minutes"
	@echo "make check         format, lint, types, imports and unit tests, in under a minute"
	@echo "make bench         measure speed and memory; results in bench-results/ (BENCH=\"--quick ingest\" for less)"
	@echo "make soak          2,000 devices among hostile clients, 30 minutes: nothing lost, memory flat (MINUTES=1 for less)"
	@echo "make format        put the code into its format"
	@echo "make requirements  pin the dependencies anew (needs uv)"

$(BIN)/python:
	@sh requirements/make_venv.sh "$(PYTHON)" "$(VENV)"

# A stamp per set of requirements: installed once, and again only when the pins change.
$(VENV)/.server: requirements/server.txt $(PACKAGE) | $(BIN)/python
	@echo "Installing the server (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/server.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.server
	@echo "Installing the tools of development (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

# The TLS scanner has a virtual environment of its own: its pins are not ours.
$(VENV)/sslyze/.done: requirements/sslyze.txt | $(BIN)/python
	@sh requirements/make_venv.sh "$(PYTHON)" "$(VENV)/sslyze"
	@$(VENV)/sslyze/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/sslyze.txt
	@touch $@

up: $(VENV)/.server
	@$(BIN)/godwit demo

services:
	@sh tests/install_services.sh $(BIN)

# Tests with real processes mostly wait: two files at a time (JOBS=0: one after another). The long ones come first.
JOBS ?= 2
test: $(VENV)/.dev $(VENV)/sslyze/.done services
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST)

# What takes minutes: more kills than `make test` has time for, and mistakes that the tests have to notice.
chaos: $(VENV)/.dev
	@SEEDS=2000 GODWIT_STORE_KILLS=50 GODWIT_IDENTITY_KILLS=200 GODWIT_CERTIFICATE_S=20 GODWIT_RENEWALS=10 \
	  $(BIN)/python -m pytest -s -o timeout=1800 tests/chaos tests/world tests/real/test_store_kill.py tests/real/test_identity_kill.py \
	  tests/real/test_renewal.py $(PYTEST)

# Types are the slowest part; the rest runs beside them.
check: $(VENV)/.dev
	@$(MAKE) --no-print-directory -j2 types lint imports unit

lint: $(VENV)/.dev
	@$(BIN)/ruff format --check --quiet src tests bench
	@$(BIN)/ruff check --quiet src tests bench

types: $(VENV)/.dev
	@$(BIN)/mypy

imports: $(VENV)/.dev
	@$(BIN)/lint-imports --no-logo

unit: $(VENV)/.dev
	@$(BIN)/python -m pytest tests/unit

format: $(VENV)/.dev
	@$(BIN)/ruff format src tests bench
	@$(BIN)/ruff check --fix --quiet src tests bench

bench: $(VENV)/.dev
	@$(BIN)/python -m bench.run $(BENCH)

MINUTES ?= 30
soak: $(VENV)/.dev
	@$(BIN)/python -m bench.soak --minutes $(MINUTES) $(SOAK)

requirements:
	@sh requirements/pin.sh
