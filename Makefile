# Each target sets up what it needs, in .venv, and can be run again.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: quickstart test check docs bench pretrained

quickstart: .venv/installed  ## collect, train and evaluate SafePendulum
	$(BIN)/trebi run safe/Pendulum-v0 runs/pendulum --preset frontier --seed 0

test: .venv/installed-dev  ## the whole test suite
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

check: .venv/installed-dev  ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: .venv/installed-dev  ## the site, into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: .venv/installed-dev  ## what takes how long on this CPU; hours
	$(BIN)/python benchmarks/latency.py --parts act training load
	$(BIN)/python benchmarks/env_overhead.py
	$(BIN)/trebi report

pretrained: quickstart  ## ship the quickstart's agent and results
	mkdir -p safe_diffusion_agent/pretrained/pendulum results/quickstart
	cp runs/pendulum/agent.safetensors safe_diffusion_agent/pretrained/pendulum/
	cp runs/pendulum/evaluation/* results/quickstart/
	$(BIN)/python examples/turn_the_dial.py results/quickstart/turn_the_dial.png
	$(BIN)/trebi report

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	touch $@
