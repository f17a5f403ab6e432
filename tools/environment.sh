#!/bin/sh
# Finds a Python and has it build the environment in .venv, unless that is there already.
# PYTHON names the interpreter to take; without it, the newest one on PATH that is new enough.
set -eu
cd -- "$(dirname -- "$0")/.."

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

if [ -n "${PYTHON:-}" ]; then
    if new_enough "$PYTHON"; then
        exec "$PYTHON" tools/environment.py
    fi
    echo "PYTHON=$PYTHON is not Python 3.11 or newer: name one that is, or leave PYTHON unset" >&2
    exit 1
fi

if .venv/bin/python tools/environment.py --check 2>/dev/null; then
    exit 0
fi

# A name on PATH need not run: version managers put a stub there for every version they know of.
for python in python3.14 python3.13 python3.12 python3.11 python3; do
    if new_enough "$python"; then
        exec "$python" tools/environment.py
    fi
done

echo "no Python 3.11 or newer on PATH: install one, or run make PYTHON=/path/to/python3" >&2
exit 1
