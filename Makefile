# Everything runs in a local .venv, made on first use and refreshed when pyproject.toml changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

# The oldest versions that pyproject.toml names, but for torch: the one of constraints.txt, since PyPI's bring gigabytes of CUDA.
OLDEST := .venv-oldest
EXTRAS := speech medical video tables plots
TOOLS := pytest>=8 pytest-xdist>=3 hypothesis>=6.100 packaging>=24 pytorch-optimizer>=4.0 torchmetrics>=1.6
TOOLS += pyparsing>=3.2,<3.3  # a later one warns of old versions of matplotlib

.PHONY: install demo test test-slow test-oldest check docs format clean
.DEFAULT_GOAL := install

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	rm -rf inrkit.egg-info  # would hide the installed entry points from whoever runs Python here
	touch $@

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/python tools/demo.py

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not slow"  # a process a core beats threads that wait for each other

test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m slow

$(OLDEST)/installed: pyproject.toml
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check uv
	printf '%s\n' $(TOOLS:%='%') | $(OLDEST)/bin/uv pip compile --quiet --python $(OLDEST)/bin/python --no-deps \
	    --resolution lowest-direct --no-emit-package torch $(EXTRAS:%=--extra %) -o $(OLDEST)/oldest.txt pyproject.toml -
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r $(OLDEST)/oldest.txt -e .
	rm -rf inrkit.egg-info
	touch $@

test-oldest: $(OLDEST)/installed
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n auto -m "not slow" tests/engine tests/modalities

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "look at build/docs/index.html"

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(OLDEST) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
