# `make` alone prints the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
READY := $(VENV)/.ready
# What --version says, which changes with each pull and commit in a clone.
VERSION := $(if $(wildcard .git/logs/HEAD),picowatch/_version.py)

.DEFAULT_GOAL := help
.PHONY: help demo run test tests test-field test-heavy test-pythons lint format types docs strips storm meetings \
	fuzz bench test-gpu bench-gpu first-gpu train release up down image-check clean

help:  ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# What running needs. torch first and by itself: anything else would pull a build of gigabytes.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo; \
		echo "picowatch needs Python 3.11 or newer, and '$(PYTHON)' is not. Install one from"; \
		echo "https://www.python.org or your system, and name it: make $(MAKECMDGOALS) PYTHON=python3.12"; \
		exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo; \
		echo "This Python has no venv module. On Debian and Ubuntu: sudo apt install python3-venv"; \
		exit 1; }
	@echo "Installing into $(VENV), torch first. The first time is a large download and takes minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install -q -c constraints.txt hatchling hatch-vcs
	$(BIN)/pip install -q -c constraints.txt -e .
	@touch $(INSTALLED)

picowatch/_version.py: .git/logs/HEAD | $(INSTALLED)
	@$(BIN)/python -m hatchling build --hooks-only --target wheel > /dev/null
	@touch $@

# What developing needs besides: nothing that is installed is downloaded again.
$(READY): $(INSTALLED) | $(VERSION)
	@echo "Installing what the tests need: Ray, mypy, pytest and others."
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	@touch $(READY)

demo: $(INSTALLED) $(VERSION)  ## Install what running needs and render the example pictures (a second run renders nothing again).
	@$(BIN)/picowatch init > /dev/null
	@$(BIN)/picowatch run --once
	@echo
	@echo "pictures  $(CURDIR)/outbox/"
	@echo "newest    $(CURDIR)/outbox/latest.png"
	@echo "gallery   $(CURDIR)/outbox/index.html"
	@echo "log       $(CURDIR)/outbox/picowatch.log"
	@echo "recipes   $(CURDIR)/inbox/ (while 'make run' is running, save one and its picture appears)"
	@echo "settings  $(CURDIR)/picowatch.yaml"
	@echo "commands  $(CURDIR)/$(BIN)/picowatch --help"

run: $(INSTALLED) $(VERSION)  ## Start the daemon: save recipes in inbox/, find pictures in outbox/.
	@$(BIN)/picowatch run

test: lint  ## Lint, format check, types and all tests but the heavy ones.
	@$(MAKE) --no-print-directory -j 2 tests types  # mypy needs one core, and a minute of it

# A worker that a test ends is not replaced: xdist would then wait for ever, instead of naming the test.
WORKERS := --dist loadfile --no-loadscope-reorder --max-worker-restart 0

# Tests call make, too. ORDER=random runs them in a random order and prints its seed, ORDER=SEED runs
# them in that one again.
tests: $(READY)
	MAKEFLAGS= $(BIN)/pytest -m "not heavy" -n 5 $(WORKERS) \
		$(if $(ORDER),-p randomly --randomly-seed=$(ORDER:random=default))

test-heavy: $(READY)  ## The tests that take minutes: Ray's nodes, the compiler, the wheel, 10,000 recipes and others.
	MAKEFLAGS= $(BIN)/pytest -m heavy -n 2 $(WORKERS) --ignore tests/load --ignore tests/benchmarks
	MAKEFLAGS= $(BIN)/pytest -m heavy tests/load tests/benchmarks  # they measure: one at a time

test-field: $(READY)  ## The tests that name what a new field of recipes lacks (two minutes).
	$(BIN)/pytest -n 2 tests/recipe tests/metadata tests/daemon/test_batches.py tests/test_docs.py

test-pythons: $(READY)  ## The tests that need no torch, on this machine's oldest Python of each version.
	$(BIN)/python -m tests.pythons

lint: $(READY)  ## Lint and check the format.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)  ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY)  ## Check the types.
	$(BIN)/mypy

docs: $(READY)  ## Rewrite the tables in docs/ from the code.
	$(BIN)/python -m docs.tables

strips: $(READY)  ## Render the pictures in docs/ whose recipes have changed.
	$(BIN)/python -m docs.strips

storm: $(READY)  ## Kill picowatch 200 times at random, then count the pictures (some minutes).
	KILLS=200 $(BIN)/python -m pytest tests/crash/test_random_kills.py

meetings: $(READY)  ## Combine features: 100,000 random actions, compared with a model (some minutes).
	MEETINGS=210 PYTHONHASHSEED=0 $(BIN)/python -m pytest tests/meetings -m "" -n 2  # sets have an order

fuzz: $(READY)  ## Fuzz everything that reads untrusted input for 10 minutes (Linux).
	$(BIN)/python -m tests.fuzz.run 10

bench: $(READY)  ## Compare picowatch with a diffusers script on the CPU (12 minutes).
	$(BIN)/python -m benchmarks.cpu

test-gpu: $(READY)  ## The engine's tests on a GPU (a minute or two).
	$(BIN)/pytest -p tests.gpu.on_card -m "not heavy" tests/engine tests/gpu --ignore tests/engine/ray

bench-gpu: $(READY)  ## Test and time everything on a GPU (ten minutes); results go into gpu-results/.
	$(BIN)/python -m benchmarks.gpu --minutes 10 --out gpu-results

first-gpu: $(READY)  ## What decides most on a GPU, in eight minutes; results go into gpu-results/.
	$(BIN)/python -m benchmarks.gpu --first --minutes 8 --out gpu-results

train: $(READY)  ## Train the demo model from scratch (hours on a CPU, minutes on a GPU).
	$(BIN)/python -m training.train

release: $(READY)  ## Build the wheel and the sdist, try them in a new environment, print what to upload.
	contrib/release.sh

up:  ## Start picowatch in Docker, on the GPU if there is one. Run it again after an update.
	@contrib/docker.sh up

down:  ## Stop it.
	@contrib/docker.sh down

image-check: $(READY)  ## Build the Docker image and try it with a Docker engine (as root, some minutes).
	$(BIN)/python -m tests.docker.image_check

clean:  ## Remove the environment and all caches; inbox, outbox and models stay.
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
