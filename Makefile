# `make` alone prints the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo run test lint format types docs storm fuzz soak train clean

help:  ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# torch first and by itself: anything else would pull a build of gigabytes.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $(READY)

demo: $(READY)  ## Install everything and make the example pictures (again: makes nothing twice).
	@$(BIN)/picowatch init
	@$(BIN)/picowatch run --once
	@echo
	@echo "pictures  $(CURDIR)/outbox/"
	@echo "newest    $(CURDIR)/outbox/latest.png"
	@echo "gallery   $(CURDIR)/outbox/index.html"
	@echo "log       $(CURDIR)/outbox/picowatch.log"

run: $(READY)  ## Start the daemon: save recipes in inbox/, find pictures in outbox/.
	@$(BIN)/picowatch run

test: lint types $(READY)  ## Lint, format check, types and all tests.
	$(BIN)/pytest -n 3 --dist loadfile

lint: $(READY)  ## Lint and check the format.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)  ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY)  ## Check the types.
	$(BIN)/mypy

docs: $(READY)  ## Write the tables in docs/ anew from the code.
	$(BIN)/python -m docs.tables

storm: $(READY)  ## Kill picowatch two hundred times at random, then count (some minutes).
	$(BIN)/python -m tests.storm.driver --kills 200

fuzz: $(READY)  ## Fuzz everything that reads strangers' bytes for 10 minutes (Linux).
	$(BIN)/python -m tests.fuzz.run --minutes 10

soak: $(READY)  ## Save a recipe a second for an hour, and look at what grows.
	$(BIN)/python -m benchmarks.soak --minutes 60

train: $(READY)  ## Train the demo model from nothing (hours on a CPU, minutes on a GPU).
	$(BIN)/python -m training.train

clean:  ## Remove the environment and all caches; inbox, outbox and models stay.
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
