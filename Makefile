PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := check

.PHONY: help check solve test test-vllm test-llamacpp lint format types package bench clean

help:  ## Show what can be made.
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

check: lint types test  ## Lint, types and tests: what a change has to pass.

$(BIN)/o1-reason: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

.venv/dev: $(BIN)/o1-reason
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

solve: $(BIN)/o1-reason  ## Set up and solve a puzzle, offline.
	$(BIN)/o1-reason solve "4 5 6 10"

test: .venv/dev  ## Set up and run the tests.
	$(BIN)/python -m pytest -q

.venv-vllm/ready: scripts/setup-vllm.sh
	PYTHON=$(PYTHON) sh scripts/setup-vllm.sh .venv-vllm
	@touch $@

.llamacpp/llama-server: scripts/setup-llamacpp.sh
	PYTHON=$(PYTHON) sh scripts/setup-llamacpp.sh .llamacpp
	@touch $@

test-vllm: .venv/dev .venv-vllm/ready  ## Tests against vLLM, which is installed first (4 minutes, 3 GB).
	$(BIN)/python -m pytest -q -m vllm

test-llamacpp: .venv/dev .llamacpp/llama-server  ## Tests against llama.cpp, which is built first (10 minutes).
	$(BIN)/python -m pytest -q -m llamacpp

lint: .venv/dev  ## Style.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/dev  ## Bring the code into form.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: .venv/dev  ## Types.
	$(BIN)/pyright --pythonpath $(BIN)/python

package: .venv/dev  ## Build the sdist, the wheel from it, install that elsewhere and test it there.
	sh scripts/test-package.sh $(BIN)/python

bench: .venv/dev  ## Measure: puzzles, overhead, latency.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/python benchmarks/game24.py
	$(BIN)/python benchmarks/latency.py
	$(BIN)/python benchmarks/overhead.py

clean:  ## Remove what was made.
	rm -rf .venv .venv-vllm .llamacpp dist build .pytest_cache .ruff_cache
