"""Checks what no linter knows: rules of this repository about its own files.

Prints a line for each breach, `path:line: what`, and exits with 1 if there is one.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MADE_AT_THE_TOP = {"build", "demo", "dist"}
KEPT_DOT_NAMES = {".ci", ".gitignore", ".gitattributes", ".editorconfig"}
CODE_FOLDERS = {"src", "tests", "benchmarks", "examples", "tools"}
CODE_SUFFIXES = {".py", ".sql"}
LOCK_FILES = {"constraints.txt", "requirements.txt", "uv.lock", "poetry.lock", "pdm.lock"}
MAX_LINES = 400

SUPPRESSED_TYPE = re.compile(r"#\s*type:\s*ignore")
ADDRESS = re.compile(r"\bhttps?://|--(?:extra-)?index-url|--find-links|--trusted-host")
# Folders of people and of their machines; what a distribution has in fixed places is no breach.
MACHINE_PATH = re.compile(r"(?<![\w.~}$/-])/(?:home|Users|root|work)/[\w.]")


def main(root: Path = ROOT) -> int:
    breaches = [breach for path in files(root) for breach in check(path, root)]
    print(*breaches, sep="\n", end="\n" if breaches else "")
    return 1 if breaches else 0


def files(root: Path) -> Iterator[Path]:
    """Yields what belongs to the repository, with or without git at hand."""
    for path in sorted(root.iterdir()):
        if path.name not in MADE_AT_THE_TOP:
            yield from files_below(path)


def files_below(path: Path) -> Iterator[Path]:
    is_made = path.name == "__pycache__" or path.suffix == ".egg-info"
    if is_made or (path.name.startswith(".") and path.name not in KEPT_DOT_NAMES):
        return
    if path.is_dir():
        for child in sorted(path.iterdir()):
            yield from files_below(child)
    else:
        yield path


def check(path: Path, root: Path) -> Iterator[str]:
    """Yields the breaches in one file; a file that is not UTF-8 text has none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        return
    place = path.relative_to(root)
    for number, line in enumerate(lines, start=1):
        if MACHINE_PATH.search(line):
            yield f"{place}:{number}: absolute path of one machine"
        if path.name in LOCK_FILES and ADDRESS.search(line):
            yield f"{place}:{number}: address of an index in a lock file"
        if place.parts[0] in CODE_FOLDERS and path.suffix == ".py" and SUPPRESSED_TYPE.search(line):
            yield f"{place}:{number}: suppressed type error"
    if place.parts[0] == "src" and path.suffix in CODE_SUFFIXES and len(lines) > MAX_LINES:
        yield f"{place}: {len(lines)} lines, more than {MAX_LINES}"


if __name__ == "__main__":
    sys.exit(main())
