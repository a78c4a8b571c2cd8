# make reproduce   install, then every table and figure of the paper (results/laptop/index.html)
# make check       install, then lint, types and the fast unit tests
# make test        install, then lint, types and every test
# make gpu-check   install, then ten minutes on an NVIDIA GPU (results/published/gpu/README.md)

PYTHON ?= python3
# relative, because make would split a path at a space
VENV := .venv
INSTALLED := $(VENV)/.installed
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PYTEST := pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: reproduce check test gpu-check lint install

reproduce: install
	snakemake --cores all

check: lint
	$(PYTEST) tests/unit -m "not slow"

test: lint
	$(PYTEST)

gpu-check: install
	prosparse step gpu-check --output results/published/gpu

lint: install
	ruff check .
	ruff format --check workflow tests
	mypy
	snakefmt --check Snakefile workflow/rules
	snakemake --lint

install: $(INSTALLED)

$(INSTALLED): envs/requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	pip install --quiet --quiet --requirement envs/requirements.txt
	pip install --quiet --quiet --no-deps --editable .
	python -c "import prosparse.operators"  # builds the CPU operators
	touch $@
