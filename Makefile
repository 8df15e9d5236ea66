# make quickstart   train and evaluate a small CNN on built-in synthetic faces (no data needed)
# make test         run the tests
# make report       the results page, the README's table and all reports from the stored predictions

PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test report lint clean

quickstart: .venv/installed
	$(BIN)/python scripts/quickstart.py

test: .venv/tested
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal

report: .venv/installed
	$(BIN)/python scripts/results.py

lint: .venv/tested
	$(BIN)/ruff check .

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'fer_jax needs Python 3.11 or newer')"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/tested: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf .venv
