#!/bin/sh
# Writes constraints.txt: one exact version of everything for every supported Python and platform,
# with the hashes of all its files. Versions stay as they are unless --upgrade is given.
set -eu
cd -- "$(dirname -- "$0")/.."

# Index addresses and settings of this machine must not end up in a file that is for everybody.
.venv/bin/uv pip compile pyproject.toml \
    --no-config --no-emit-index-url --no-emit-find-links --quiet \
    --universal --python-version 3.11 --generate-hashes \
    --extra fast --extra postgres --group dev --group bench --group build \
    --custom-compile-command "make constraints" \
    --output-file constraints.txt "$@"
