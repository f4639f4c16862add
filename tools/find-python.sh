#!/bin/sh
# Prints the first Python >= 3.11 on the PATH. A name on the PATH may be a shim that does not run: try each.
for name in ${PYTHON:-} python3 python3.11 python3.12 python3.13 python3.14 python; do
    if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        command -v "$name"
        exit 0
    fi
done
echo "gcnet needs Python 3.11 or newer with the venv module; set PYTHON=/path/to/python" >&2
exit 1
