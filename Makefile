# Two commands on a machine with Python >= 3.11 and nothing else: make demo, make test.
# The environment is .venv of this checkout: uv makes it from uv.lock where uv exists, else venv
# and pip. It is made anew when pyproject.toml or uv.lock change.

PYTHON ?= python3
ENV := .venv/.installed
COVERAGE := 94
EXTRAS := all openvino labelstudio docs
# its own pins (Flask 1, Jinja2 3.0) are older than what it works with
LABEL_STUDIO_ML := label-studio-ml==1.0.9
empty :=
comma := ,

.PHONY: demo test test-slow coverage lint architecture audit torture docs setup clean

demo: $(ENV)
	.venv/bin/svfseg demo --out demo

test: $(ENV)
	.venv/bin/python -m pytest

test-slow: $(ENV)
	.venv/bin/python -m pytest -m slow

# the floor is the value of the day it was set, rounded down: raise it, never lower it
coverage: $(ENV)
	.venv/bin/python -m pytest -m "" --cov --cov-report=term:skip-covered --cov-fail-under=$(COVERAGE)

lint: $(ENV)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy --strict src
	.venv/bin/lint-imports --no-cache
	.venv/bin/codespell

# levels, arrows, and that none climbs
architecture: $(ENV)
	.venv/bin/lint-imports --no-cache
	.venv/bin/python results/architecture.py

# vulnerabilities, bill of materials, licences, and whether the wheel can be built again
audit: $(ENV)
	@if command -v uv >/dev/null 2>&1; then \
		uv sync --locked --quiet $(addprefix --extra ,$(EXTRAS)) --group dev --group audit; \
	else \
		.venv/bin/python -m pip install --quiet --group audit; \
	fi
	.venv/bin/python results/audit.py

# kills, full disks, forged files and strangers: more than an hour; the share in make test takes one
# minute. Counts go to results/torture.json, which docs/reliability.md shows
torture: $(ENV)
	.venv/bin/python -m tests.torture $(or $(FOLDER),build/torture)

docs: $(ENV)
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet

setup: $(ENV)

$(ENV): pyproject.toml uv.lock
	@if command -v uv >/dev/null 2>&1; then \
		uv sync --locked $(addprefix --extra ,$(EXTRAS)) --group dev; \
	else \
		$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
			|| { echo "svfseg needs Python 3.11 or later: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }; \
		test -x .venv/bin/python -a -x .venv/bin/pip || $(PYTHON) -m venv --clear .venv; \
		.venv/bin/python -m pip install --upgrade 'pip>=25.1' \
		&& .venv/bin/python -m pip install --editable '.[$(subst $(empty) $(empty),$(comma),$(EXTRAS))]' --group dev; \
	fi
	@touch $(ENV)

clean:
	rm -rf .venv build demo site
