VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# torch is asked for by its pinned version, so that pip takes a CPU wheel where one is offered.
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)
DEVKIT := nuscenes-devkit==1.2.0

.PHONY: demo test lint check clean

demo: $(VENV)/.run
	$(BIN)/aqr demo --out demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: test lint

$(VENV)/.run: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "$(TORCH)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,spconv]"
	$(BIN)/python -m pip install --quiet --no-deps $(DEVKIT)
	command -v chromium >/dev/null \
		|| { apt-get update -q && apt-get install -y -q --no-install-recommends chromium fonts-noto-cjk; } \
		|| echo "chromium could not be installed: the tests that open the report in a browser will skip"
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null \
		|| { apt-get update -q && apt-get install -y -q --no-install-recommends postgresql; } \
		|| echo "PostgreSQL could not be installed: the tests of sweeps that share one will skip"
	touch $@

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
