# On a fresh machine `make demo` and `make test` do all: the first call makes .venv and installs into it.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: help demo test fast slow check docs format bench build clean

help:
	@echo "make demo    run the main job on real data and write demo/report.html"
	@echo "make test    all tests: the fast suite, then the longer proofs"
	@echo "make fast    the fast suite alone"
	@echo "make check   ruff, format, mypy"
	@echo "make docs    the site into site/, then every example, link and citation of the documents"
	@echo "make bench   what monitoring costs, measured on this machine"
	@echo "make build   wheel and sdist into dist/"

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $(READY)

demo: $(READY)
	$(BIN)/stepscope demo --output demo

test: fast slow

fast: $(READY)
	$(BIN)/python -m pytest -n 2

slow: $(READY)
	$(BIN)/python -m pytest -n 2 -m slow

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python docs/site/build.py site
	$(BIN)/python -m pytest -m "slow or not slow" tests/test_documents.py

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/engine.py

build: $(READY)
	$(BIN)/python -m build --outdir dist .

clean:
	rm -rf .venv build dist demo site *.egg-info
