# casstore: build, demo, test. Everything happens in $(VENV), which is made where it is missing.

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
BENCH_ARGS ?=
CORPUS ?=
BENCH_WORK ?= build/bench
SIEGE_ARGS ?=
FUZZ_SECONDS ?= 3600
FUZZ_ARGS ?=
BIN := $(VENV)/bin
NATIVE := $(wildcard _native/*.c _native/*.h _native/*.pyx)

.PHONY: help build demo test lint lint-style lint-types lint-rooms bench siege fuzz clean

help:
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

build: $(VENV)/built ## the environment and the compiled kernels

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/built: pyproject.toml setup.py $(NATIVE) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,lint]'
	@touch $@

demo: build ## images from this machine's own files: load, list, save, verify, collect
	$(BIN)/casstore demo

test: build ## pytest; PYTEST_ARGS="tests/unit -k name" for a part
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: lint-style lint-types lint-rooms ## ruff, mypy --strict, the import contract

lint-style: build
	$(BIN)/ruff check .

lint-types: build
	$(BIN)/mypy

lint-rooms: build
	$(BIN)/lint-imports

bench: build ## kernels, in MB/s per core; CORPUS=DIR: whole commands beside the installed peers, too
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python -m pytest benchmarks
	$(if $(CORPUS),$(BIN)/python benchmarks/run.py --corpus $(CORPUS) --work $(BENCH_WORK) $(BENCH_ARGS))

siege: build ## commands killed, failed and cut off at each of their calls, then a crowd: an hour each; SIEGE_ARGS="--sample 4", CROWD_ARGS="--seconds 60" for a part
	PYTHONPATH=tests $(BIN)/python tests/crash/siege.py --json build/siege.json $(SIEGE_ARGS)
	$(BIN)/python tests/crowd/crowd.py --seconds 3600 --json build/crowd.json $(CROWD_ARGS)

fuzz: build ## every reader of foreign bytes under a fuzzer, FUZZ_SECONDS (3600) each; FUZZ_ARGS="archive --jobs 1" for a part
	$(BIN)/python tests/fuzz/fuzz.py --seconds $(FUZZ_SECONDS) $(FUZZ_ARGS)

clean: ## the environment and everything built
	rm -rf $(VENV) build dist *.egg-info casstore/kernels/*.so
