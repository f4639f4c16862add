# Every target sets up what it needs: Python 3.11 or newer, git and make are enough.
# The first run creates .venv and installs the package with the versions in constraints.txt.

PY := .venv/bin/python
STAMP := .venv/.setup-done

# The tests and the demo are small tensors: more threads than cores only slow them down.
TEST_ENV := OMP_NUM_THREADS=1

.PHONY: setup demo test test-all test-matrix coverage check format fuzz audit docs dist clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(PY) || { python=$$(sh tools/find-python.sh) && "$$python" -m venv .venv; }
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	$(PY) -m uv pip install --quiet --compile-bytecode --python $(PY) -c constraints.txt -e ".[dev]"
	touch $@

demo: setup
	.venv/bin/gcnet demo

test: setup
	$(TEST_ENV) $(PY) -m pytest -q -n 2 -m "not slow"

test-all: setup
	$(TEST_ENV) $(PY) -m pytest -q -n 2

# The quick tests with the oldest versions that pyproject.toml allows, and with another Python (OTHER_PYTHON names it).
test-matrix: setup
	PY=$(PY) sh tools/test-matrix.sh

# What the quick tests run of src; the page is in build/coverage. Processes that tests start are not counted.
coverage: setup
	$(TEST_ENV) $(PY) -m pytest -q -n 2 -m "not slow" --cov --cov-report=term --cov-report=html:build/coverage

# COUNT hostile inputs of each kind; another SEED gives others. Those that do harm are kept in build/fuzz.
COUNT := 1000
SEED := 0
fuzz: setup
	$(TEST_ENV) $(PY) tests/fuzz/harness.py --count $(COUNT) --seed $(SEED) --keep build/fuzz

# Asks a list of known vulnerabilities about the versions in constraints.txt; needs a network.
audit: setup
	$(PY) tools/audit.py

# The documents as a site in build/site, which opens without a server or a network.
docs: setup
	.venv/bin/zensical build --strict --clean

# The wheel and the source archive, built twice: the same commit gives the same bytes.
dist: setup
	rm -rf dist build/dist-again
	for out in dist build/dist-again; do \
		SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(PY) -m uv build --quiet --out-dir $$out || exit 1; \
	done
	diff -r dist build/dist-again && sha256sum dist/gcnet-*

check: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright
	.venv/bin/lint-imports

format: setup
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

clean:
	rm -rf .venv .venv-oldest .venv-other build dist
