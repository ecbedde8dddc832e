# `make test` needs nothing but Python 3.11 or later: it makes a virtual environment, installs fxqat into it and runs every check.
# An environment that exists is reused: `make test VENV=/path/to/venv`. `make demo` ends in a table and a picture.
PYTHON ?= python3
VENV ?= .venv
PYTEST ?=
DEMO ?=

python := $(VENV)/bin/python
stamp := $(VENV)/.fxqat-installed
sources := fxqat patterns bench tests docs/hooks

.PHONY: test check demo docs install format clean

# Two processes, each with whole files, since fixtures trace and export once a file.
test: check
	$(python) -m pytest -n 2 --dist loadfile $(PYTEST)

check: $(stamp)
	$(python) -m ruff check $(sources)
	$(python) -m ruff format --check $(sources)
	$(python) -m mypy

# The main job with nothing at hand; what is there from the last run is kept.
demo: $(stamp)
	$(python) -m fxqat.cli demo $(DEMO)

# The documentation as a site in site/; broken links and missing pages are errors.
docs: $(stamp)
	NO_MKDOCS_2_WARNING=1 $(python) -m mkdocs build --strict

install: $(stamp)

# Installed again only when the dependencies change.
$(stamp): pyproject.toml
	test -x $(python) || $(PYTHON) -m venv $(VENV)
	$(python) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

format: $(stamp)
	$(python) -m ruff check --fix $(sources)
	$(python) -m ruff format $(sources)

clean:
	rm -rf .venv demo-data build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
