# The python that makes .venv: 3.10 to 3.13.
PYTHON ?= python3
VENV ?= .venv
DEMO_DIR ?= demo
# Two processes, since tracing a graph keeps one core busy; a file's tests stay
# together, or two would make its fixtures, and files in the order that
# tests/conftest.py gives them.
PYTEST_FLAGS ?= --numprocesses=2 --dist=loadfile --no-loadscope-reorder
# What pip is told to install for `make benchmark`. PyPI's Linux wheel brings
# gigabytes of CUDA along; without a GPU, the CPU-only build is enough:
#   make benchmark TORCH='torch --index-url https://download.pytorch.org/whl/cpu'
TORCH ?= torch

BIN := $(VENV)/bin
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: demo test lint results benchmark clean

demo: $(VENV)/.installed
	$(BIN)/python -m ape_gan_tf.train --flagfile=flags/digits.flags \
		--workdir=$(DEMO_DIR)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Of the page of results, what is between its markers.
results: $(VENV)/.installed
	$(BIN)/python -m ape_gan_tf.results_page --page=docs/results.md

benchmark: $(VENV)/.installed-benchmark
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/craft_memory.py
	$(BIN)/python benchmarks/serving.py

# A stamp is newer than the two files that say what is installed; pip runs
# again only when one of them changes.
$(VENV)/.installed: setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --editable '.[test]'
	touch $@

$(VENV)/.installed-benchmark: $(VENV)/.installed
	$(BIN)/python -m pip install $(TORCH)
	$(BIN)/python -m pip install --editable '.[benchmark]'
	touch $@

# The environment stays, since it takes minutes to make: remove .venv by hand.
clean:
	rm -rf $(DEMO_DIR) build dist *.egg-info
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
