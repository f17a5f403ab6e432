"""The house around the code: what the files of the repository promise each other."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

import mailrace
from tools import hygiene

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = (
    "confluent_kafka",
    "litestar",
    "opentelemetry",
    "prometheus_client",
    "psycopg",
    "uvicorn",
    "uvloop",
)
ADAPTERS_OF_EXTRAS = ("mailrace.queue.stores.postgres", "mailrace.queue.stores.redis_cache")
GROUPS_PINNED = ("dev", "bench", "build")
EXTRAS_PINNED = ("fast", "postgres")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def pins() -> dict[NormalizedName, str]:
    """What constraints.txt says: name to the text of its entry, hashes and markers included."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    entries = re.findall(r"^([A-Za-z0-9._-]+==(?:.*\\\n)*.*)$", text, flags=re.MULTILINE)
    return {canonicalize_name(entry.split("==")[0]): entry for entry in entries}


def test_the_version_is_said_once_and_the_same_everywhere(project: dict[str, Any]) -> None:
    assert importlib.metadata.version("mailrace") == project["project"]["version"]
    assert mailrace.__version__ == project["project"]["version"]


def test_the_changelog_has_the_version(project: dict[str, Any]) -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## {project['project']['version']}" in changelog


def test_make_help_lists_every_target() -> None:
    make = shutil.which("make")
    assert make is not None
    listing = subprocess.run(
        [make, "--no-print-directory", "help"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
    ).stdout
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z][\w-]*):(?!=)", makefile, flags=re.MULTILINE)
    listed = re.findall(r"^make ([\w-]+) +\S", listing, flags=re.MULTILINE)
    assert {"help", "demo", "test", "check", "bench", "clean"} <= set(targets)
    assert listed == targets
    phony = re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
    assert phony is not None
    assert phony[1].split() == targets


def test_every_pin_is_exact_and_has_the_hashes_of_its_files() -> None:
    entries = pins()
    assert len(entries) > 30
    for name, entry in entries.items():
        assert re.match(r"\S+==\d[\w.!+]*( ; .+)? \\$", entry.splitlines()[0]), name
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), name


def test_constraints_name_nothing_but_packages() -> None:
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        is_entry = re.match(r"[A-Za-z0-9._-]+==", line)
        is_hash = re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line)
        is_comment = re.match(r" *# *", line) and "//" not in line and " -" not in line
        assert is_entry or is_hash or is_comment, line


def test_constraints_hold_what_the_project_asks_for(project: dict[str, Any]) -> None:
    asked = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for extra in EXTRAS_PINNED:
        asked += project["project"]["optional-dependencies"][extra]
    for group in GROUPS_PINNED:
        asked += project["dependency-groups"][group]
    entries = pins()
    for line in asked:
        wanted = Requirement(line)
        pinned = entries[canonicalize_name(wanted.name)].splitlines()[0]
        version = Version(pinned.split("==")[1].split()[0])
        assert version in wanted.specifier, f"{line} against {pinned}"


def test_everything_imports_without_any_extra() -> None:
    modules = sorted(
        ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "src" / "mailrace").rglob("*.py")
        if path.name != "__main__.py"
    )
    # Adapters of an extra are imported where somebody has one, by the wiring.
    modules = [name for name in modules if not name.startswith(ADAPTERS_OF_EXTRAS)]
    program = (
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({EXTRAS!r}))\n"  # None there makes an import fail
        f"for name in {modules!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def pages() -> list[Path]:
    return [page for page in hygiene.files(ROOT) if page.suffix == ".md"]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_the_documentation_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked), f"{page.name} links to {target}"


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    listing = (folder / "README.md").read_text(encoding="utf-8")
    decisions = sorted(page.name for page in folder.glob("0*.md"))
    assert decisions
    for number, name in enumerate(decisions, start=1):
        assert name.startswith(f"{number:04}-"), "numbers are given once, without a gap"
        assert f"({name})" in listing


def test_the_repository_keeps_its_own_rules() -> None:
    breaches = [breach for path in hygiene.files(ROOT) for breach in hygiene.check(path, ROOT)]
    assert breaches == []


# The pieces are joined here so that this file does not hold what it forbids.
@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("src/a.py", "x = 1  # type" + ": ignore", "suppressed type error"),
        ("tests/a.py", "x = 1  #type" + ":ignore[misc]", "suppressed type error"),
        ("src/a.py", "x = 1\n" * 401, "401 lines, more than 400"),
        ("docs/a.md", "see /ho" + "me/ann/notes", "absolute path of one machine"),
        ("Makefile", "PYTHON = /ro" + "ot/bin/python", "absolute path of one machine"),
        ("uv.lock", 'url = "https' + '://example.org"', "address of an index in a lock file"),
        ("constraints.txt", "--find" + "-links wheels", "address of an index in a lock file"),
    ],
)
def test_hygiene_sees(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, what: str
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    assert hygiene.main(tmp_path) == 1
    assert what in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("docs/a.md", "`# type" + ": ignore` and https" + "://example.org"),
        ("src/a.py", "x = 1\n" * 400),
        ("src/people.csv", "x\n" * 401),
        ("tests/a.py", "x = 1\n" * 401),
        ("docs/a.md", "/usr/sbin/smtp-sink, docs/root/page, $HOME/work/x, /var/tmp"),
        (".venv/a.py", "# type" + ": ignore"),
        ("build/a.py", "/ro" + "ot/x"),
    ],
)
def test_hygiene_lets_pass(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    assert hygiene.main(tmp_path) == 0


def test_without_a_python_the_environment_says_so_in_one_line(tmp_path: Path) -> None:
    done = run_environment(tmp_path, PYTHON="")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "no Python 3.11 or newer on PATH: install one, or run make PYTHON=/path/to/python3"
    ]


def test_a_wrong_python_is_named_in_one_line(tmp_path: Path) -> None:
    done = run_environment(tmp_path, PYTHON="/nowhere/python")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("PYTHON=/nowhere/python is not Python 3.11 or newer")


def run_environment(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Runs a copy of the script where no .venv is, with a PATH that holds only `dirname`."""
    tools, programs = folder / "tools", folder / "programs"
    tools.mkdir()
    programs.mkdir()
    shutil.copy(ROOT / "tools" / "environment.sh", tools)
    shell, dirname = shutil.which("sh"), shutil.which("dirname")
    assert shell is not None
    assert dirname is not None
    (programs / "dirname").symlink_to(dirname)
    return subprocess.run(
        [shell, str(tools / "environment.sh")],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": str(programs), **settings},
    )
