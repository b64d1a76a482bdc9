# Two commands on a machine with Python >= 3.11 and nothing else: make demo, make test.
# The environment is .venv of this checkout: uv makes it from uv.lock where uv exists, else venv
# and pip. It is made anew when pyproject.toml or uv.lock change.

PYTHON ?= python3
ENV := .venv/.installed

.PHONY: demo test lint setup clean

demo: $(ENV)
	.venv/bin/svfseg demo --out demo

test: $(ENV)
	.venv/bin/python -m pytest

lint: $(ENV)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy --strict src

setup: $(ENV)

$(ENV): pyproject.toml uv.lock
	@if command -v uv >/dev/null 2>&1; then \
		uv sync --locked --extra demo --extra coco --extra peft --extra export --extra openvino --group dev; \
	else \
		$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
			|| { echo "svfseg needs Python 3.11 or later: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }; \
		test -x .venv/bin/python -a -x .venv/bin/pip || $(PYTHON) -m venv --clear .venv; \
		.venv/bin/python -m pip install --upgrade 'pip>=25.1' \
		&& .venv/bin/python -m pip install --editable '.[demo,coco,peft,export,openvino]' --group dev; \
	fi
	@touch $(ENV)

clean:
	rm -rf .venv demo
