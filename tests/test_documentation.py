"""What the documentation says is so: it is run, and compared with the code."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest
from cyclopts import App, CycloptsError, Parameter

from mailrace.cli import exits
from mailrace.cli.app import COMMANDS, GROUPS
from mailrace.cli.demo import demo
from mailrace.cli.options import SendOptions
from mailrace.cli.status import status
from mailrace.cli.worker import WorkerOptions
from mailrace.mail.providers.smtp import parse_smtp_url
from mailrace.queue import JobState
from mailrace.settings import ENVIRONMENT, Settings, load_settings
from tests.support.command import environment
from tests.support.recording import RecordingServer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SENDING = (ROOT / "docs" / "sending.md").read_text(encoding="utf-8")
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# What sends no mail has a test of its own.
TESTED_ELSEWHERE = {"cache.py": "tests/pool/test_cache_example.py"}
EXAMPLES = [
    path for path in sorted((ROOT / "examples").glob("*.py")) if path.name not in TESTED_ELSEWHERE
]
TYPING_TESTS = sorted((ROOT / "tests" / "typing").glob("*.py"))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def section(title: str, page: str = SENDING) -> str:
    """A section of a page, without those after it."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def first_cells(title: str, page: str = SENDING) -> list[str]:
    """What stands in backticks in the first column of a section's table."""
    rows = re.findall(r"^\| (`.*?) \|", section(title, page), re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def options_of(options: type[SendOptions | WorkerOptions]) -> set[str]:
    hints = get_type_hints(options, include_extras=True)
    names: set[str] = set()
    for field in fields(options):
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
    program = blocks(README, "python")[0]
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
    assert set(first_cells("Options of `mailrace send`")) == options_of(SendOptions)
    assert {*first_cells("The worker", OPERATIONS), "-v"} == options_of(WorkerOptions)
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
    codes = sorted(value for name, value in vars(exits).items() if name.isupper())
    table = re.findall(r"^\| (\d+) \|", section("Exit codes", OPERATIONS), re.MULTILINE)
    assert [int(code) for code in table] == codes
    of_send = re.findall(r"^\| (\d+) \|", section("Exit codes"), re.MULTILINE)
    assert [int(code) for code in of_send] == [code for code in codes if code != exits.REPLACE]


def test_every_state_is_explained() -> None:
    assert first_cells("What becomes of a message") == list(JobState)


def test_environment_variables() -> None:
    names = {f"MAILRACE_{name.upper()}" for name in Settings.__struct_fields__}
    names |= set(ENVIRONMENT.values())
    names |= {"SMTP_HOST", "SMTP_PORT", "SMTP_USER", "SMTP_PASSWORD"}
    told = first_cells("Environment and `mailrace.toml`")
    told += [name for name in first_cells("Settings", OPERATIONS) if name.isupper()]
    assert set(told) == names


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


TOML = [(ROOT / "examples" / "mailrace.toml").read_text(), *blocks(SENDING + OPERATIONS, "toml")]


@pytest.mark.parametrize("text", TOML)
def test_example_settings_load(text: str, tmp_path: Path) -> None:
    """Each shows what differs from the default."""
    (tmp_path / "mailrace.toml").write_text(text)
    settings = load_settings(flags={}, environment={}, folder=tmp_path)
    for name in tomllib.loads(text):
        assert getattr(settings, name) != getattr(Settings(), name), name


def test_every_setting_is_in_an_example() -> None:
    shown = {name for text in blocks(SENDING + OPERATIONS, "toml") for name in tomllib.loads(text)}
    assert shown == set(Settings.__struct_fields__)


def the_command() -> App:
    """The command line as `mailrace` has it, to be asked and not to be run."""
    plain = Parameter(negative=())
    app = App(name="mailrace", default_parameter=plain, result_action="return_value")
    for name, command in COMMANDS.items():
        app.command(command, name=name)
    for name, (_, commands) in GROUPS.items():
        group = App(name=name)
        for word, command in commands.items():
            if word:
                group.command(command, name=word)
            else:
                group.default(command)
        app.command(group)
    return app


def command_lines() -> list[tuple[str, list[str]]]:
    """The words of every `mailrace …` in a block of commands, by the page."""
    return [
        (page.name, shlex.split(line, comments=True)[1:])
        for page in PAGES
        for block in blocks(page.read_text(encoding="utf-8"), "sh")
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("mailrace ")
    ]


@pytest.mark.parametrize(
    ("page", "words"),
    command_lines(),
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else value,
)
def test_a_command_line_is_one_that_the_command_takes(page: str, words: list[str]) -> None:
    the_command().parse_args(words, exit_on_error=False, print_error=False)
    assert page


def test_there_are_command_lines_and_a_wrong_one_would_be_seen() -> None:
    assert {words[0] for _, words in command_lines()} >= {"send", "worker", "jobs", "workers"}
    for wrong in (["jobs", "revive"], ["workers", "pause", "--all"], ["queue", "pause", "mail"]):
        with pytest.raises(CycloptsError):
            the_command().parse_args(wrong, exit_on_error=False, print_error=False)


def mentions() -> list[tuple[str, str]]:
    """Every `mailrace …` within a sentence, by the page."""
    return [
        (page.name, " ".join(text.split()))
        for page in PAGES
        for text in re.findall(r"`mailrace\s+([^`]+)`", prose(page))
    ]


def prose(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("page", "text"), mentions(), ids=str)
def test_a_command_that_a_sentence_names_is_there_with_its_options(page: str, text: str) -> None:
    words = [word for word in shlex.split(text) if word != "--help"]
    named, apps, _ = the_command().parse_commands(words)
    assert named, page
    options = {word for word in words if word.startswith("--")}
    if options:
        arguments = apps[-1].assemble_argument_collection()
        assert options <= {name for argument in arguments for name in argument.names}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/**/*.md")), ids=lambda page: page.name)
def test_the_tests_that_a_page_names_are_there(page: Path) -> None:
    named = re.findall(r"`(tests/[\w/.]+)`", page.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []
