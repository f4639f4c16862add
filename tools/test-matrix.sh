#!/bin/sh
# Runs the quick tests in environments of their own: the oldest versions that pyproject.toml allows, and the
# newest Python on the PATH, or OTHER_PYTHON, beside that of .venv. Says which failed; the first run installs both.
set -u
PY=${PY:-.venv/bin/python}
failed=

run() { # NAME PYTHON INSTALL-OPTIONS...
    name=$1 python=$2
    shift 2
    echo "== $name: $("$python" --version)"
    test -x ".venv-$name/bin/python" || "$python" -m venv ".venv-$name" || return 1
    "$PY" -m uv pip install --quiet --python ".venv-$name/bin/python" "$@" -e ".[dev]" || return 1
    OMP_NUM_THREADS=1 ".venv-$name/bin/python" -m pytest -q -n 2 -m "not slow"
}

run oldest "$PY" --resolution lowest-direct || failed="$failed oldest"

current=$("$PY" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
other=
for python in ${OTHER_PYTHON:-} python3.14 python3.13 python3.12 python3.11; do
    test "$python" != "python$current" || continue
    if "$python" -c 'import venv, ensurepip' 2>/dev/null; then other=$python && break; fi
done
if test -n "$other"; then
    run other "$other" -c constraints.txt || failed="$failed $other"
else
    failed="$failed no-other-Python-than-$current(set-OTHER_PYTHON=/path/to/python)"
fi

test -z "$failed" || { echo "failed:$failed" >&2; exit 1; }
