"""What the documentation says is so: it is run, and compared with the code."""

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest
from cyclopts import Parameter

from mailrace.cli import exits
from mailrace.cli.demo import demo
from mailrace.cli.options import SendOptions
from mailrace.cli.status import status
from mailrace.mail.providers.smtp import parse_smtp_url
from mailrace.queue import JobState
from mailrace.settings import ENVIRONMENT, Settings, load_settings
from tests.support.command import environment
from tests.support.recording import RecordingServer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SENDING = (ROOT / "docs" / "sending.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# What sends no mail has a test of its own.
TESTED_ELSEWHERE = {"cache.py": "tests/pool/test_cache_example.py"}
EXAMPLES = [
    path for path in sorted((ROOT / "examples").glob("*.py")) if path.name not in TESTED_ELSEWHERE
]
TYPING_TESTS = sorted((ROOT / "tests" / "typing").glob("*.py"))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    """A section of docs/sending.md, without those after it."""
    found = re.search(
        rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", SENDING, re.MULTILINE | re.DOTALL
    )
    assert found, title
    return found[1]


def first_cells(title: str) -> list[str]:
    """What stands in backticks in the first column of a section's table."""
    rows = re.findall(r"^\| (`.*?) \|", section(title), re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def options_of_send() -> set[str]:
    hints = get_type_hints(SendOptions, include_extras=True)
    names: set[str] = set()
    for field in fields(SendOptions):
        given = [
            part.name
            for part in get_args(hints[field.name])
            if get_origin(hints[field.name]) is Annotated
            and isinstance(part, Parameter)
            and part.name
        ]
        names.update(*given) if given else names.add(f"--{field.name.replace('_', '-')}")
    return names


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env=environment() | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def newcomer(tmp_path: Path) -> Path:
    """A folder with the files that the README shows."""
    (people,) = blocks(README, "csv")
    (html,) = blocks(README, "html")
    (tmp_path / "people.csv").write_text(people, encoding="utf-8")
    (tmp_path / "welcome.html").write_text(html, encoding="utf-8")
    return tmp_path


def test_the_readmes_commands(newcomer: Path) -> None:
    """The first block as it stands; the second with a server on this machine for the relay."""
    first, second = blocks(README, "sh")
    done = shell(f"set -e\n{first}", newcomer)
    assert (done.returncode, done.stderr) == (0, "")
    assert "people: all sent" in done.stdout
    assert "2  completed" in done.stdout
    assert len(list((newcomer / "outbox").glob("*.eml"))) == 2
    checked = shell(f"{second.rstrip()} --dry-run", newcomer)
    assert (checked.returncode, checked.stderr) == (0, "")
    with RecordingServer() as server:
        line = re.sub(r"smtp://\S+", server.url, second.rstrip())
        sent = shell(f"{line} --campaign second", newcomer)
        assert sent.returncode == 0, sent.stderr
        assert set(server.recorded.messages) == {"ada@example.net", "boris@example.org"}


def test_the_readmes_program(tmp_path: Path) -> None:
    (program,) = blocks(README, "python")
    done = python("-c", program, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "2 sent, 0 failed\n"
    assert len([line for line in program.splitlines() if line.strip()]) <= 20


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(path: Path, tmp_path: Path) -> None:
    """Into a folder, and through a server."""
    done = python(path, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    written = len(list((tmp_path / "outbox").glob("*.eml")))
    (tmp_path / "mailrace.db").unlink()
    with RecordingServer() as server:
        done = python(path, server.url, folder=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert server.recorded.total == written > 0


def test_an_example_that_is_tested_elsewhere_is_there_and_so_is_its_test() -> None:
    for name, test in TESTED_ELSEWHERE.items():
        assert (ROOT / "examples" / name).exists()
        assert name in (ROOT / test).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", TYPING_TESTS, ids=lambda path: path.name)
def test_a_typing_test_runs(path: Path, tmp_path: Path) -> None:
    done = python(path, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def python(*words: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *words],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_option_is_documented_and_every_documented_one_exists() -> None:
    assert set(first_cells("Options of `mailrace send`")) == options_of_send()
    for command in (status, demo):
        names = {f"--{name}" for name in get_type_hints(command) if name != "return"}
        assert set(first_cells(f"Options of `mailrace {command.__name__}`")) == names


def test_defaults_are_those_of_the_settings() -> None:
    rows = dict(
        re.findall(
            r"^\| `(--\w+)` .*\| `([^`]+)` \|$", section("Options of `mailrace send`"), re.MULTILINE
        )
    )
    for name in ("store", "rate", "workers", "buffer", "retry"):
        assert rows[f"--{name}"] == str(getattr(Settings(), name))


def test_exit_codes() -> None:
    codes = [value for name, value in vars(exits).items() if name.isupper()]
    table = re.findall(r"^\| (\d) \|", section("Exit codes"), re.MULTILINE)
    assert [int(code) for code in table] == sorted(codes)


def test_every_state_is_explained() -> None:
    assert first_cells("What becomes of a message") == list(JobState)


def test_environment_variables() -> None:
    names = {f"MAILRACE_{name.upper()}" for name in Settings.__struct_fields__}
    names |= set(ENVIRONMENT.values())
    names |= {"SMTP_HOST", "SMTP_PORT", "SMTP_USER", "SMTP_PASSWORD"}
    assert set(first_cells("Environment and `mailrace.toml`")) == names


def test_every_key_of_the_provider_url() -> None:
    """Each documented key is taken with a documented value, and no other key exists."""
    table = section("The provider").partition("| key |")[2]
    rows = re.findall(r"^\| `([\w-]+)` \| (.*?) \|", table, re.MULTILINE)
    examples = {
        "a PEM file": "own.pem",
        "a host name": "us.example",
        "a number": "3",
        "seconds": "3",
    }
    for key, values in rows:
        for value in re.findall(r"`([^`]+)`", values) or [examples[values]]:
            parse_smtp_url(f"smtp://ann:secret@relay.example?{key}={value}")
    with pytest.raises(Exception, match="known are") as raised:
        parse_smtp_url("smtp://relay.example?zzz=1")
    known = str(raised.value).partition("known are ")[2].split(", ")
    assert sorted(key for key, _ in rows) == sorted(known)


@pytest.mark.parametrize(
    "text", [(ROOT / "examples" / "mailrace.toml").read_text(), *blocks(SENDING, "toml")]
)
def test_example_settings_load(text: str, tmp_path: Path) -> None:
    (tmp_path / "mailrace.toml").write_text(text)
    settings = load_settings(flags={}, environment={}, folder=tmp_path)
    for name in Settings.__struct_fields__:
        assert getattr(settings, name) != getattr(Settings(), name), name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/**/*.md")), ids=lambda page: page.name)
def test_the_tests_that_a_page_names_are_there(page: Path) -> None:
    named = re.findall(r"`(tests/[\w/.]+)`", page.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []
