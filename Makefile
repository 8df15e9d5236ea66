# make quickstart   train and evaluate a small CNN on built-in synthetic faces (no data needed)
# make test         run the tests
# make app          the app, in a browser
# make web          the page that runs the shipped network in the browser, in dist/web (needs npm)
# make docs         the documentation, in dist/docs
# make lint         the linters
# make types        the type checker
# make clean        removes .venv
# make links        checks the links of the documentation (needs a network)
# make pictures     the pictures of the README (needs Chromium)
# make report       the results page, the README's table of networks and all reports from the stored predictions

PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test app web docs links pictures report lint types clean

quickstart: .venv/installed
	$(BIN)/python scripts/quickstart.py

test: .venv/tested
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal --durations 10

app: .venv/with_app
	$(BIN)/fer-jax app

web: .venv/with_export
	npm ci --prefix examples/browser --ignore-scripts
	$(BIN)/python examples/browser/build.py --checkpoint cnn_1m_64 --out dist/web

docs: .venv/with_docs
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -b html docs dist/docs

links: .venv/with_docs
	$(BIN)/sphinx-build --quiet -D nb_execution_mode=off -b linkcheck docs dist/links

pictures: .venv/with_app .venv/with_browser
	$(BIN)/python docs/pictures.py

report: .venv/installed
	$(BIN)/python scripts/results.py

lint: .venv/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell -D - -D .codespell.txt

types: .venv/tested .venv/with_types
	$(BIN)/pyright

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'fer_jax needs Python 3.11 or newer')"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

# Without its dependency opencv-contrib-python, which would replace the OpenCV that is there.
.venv/tested: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps mediapipe
	touch $@

.venv/with_%: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$*]'
	touch $@

clean:
	rm -rf .venv
