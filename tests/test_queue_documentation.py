"""What docs/queue.md says is so: its programs are run, and its tables compared with the code."""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mailrace.cli.app import COMMANDS, GROUPS
from mailrace.jobs import Handlers, JobChoices, JobFilter, JobState, Queue, WorkerSettings
from mailrace.queue.alerts import AlertKind
from mailrace.queue.answers import ANSWERS
from mailrace.queue.queuerules import QueueRules
from mailrace.queue.states import FINAL
from mailrace.queue.stores.postgres import PostgresStore
from mailrace.queue.stores.postgres.migrate import migrate
from mailrace.queue.upkeep import DEFAULT_KEEP_S
from tests.support.command import environment

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "queue.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
GIVEN = "DATABASE_URL"
LIMIT_S = 30.0
_DAY_S = 86_400


class Program(NamedTuple):
    """A program of a page and what it is said to print."""

    name: str
    text: str
    output: str | None


def programs(page: str) -> list[Program]:
    found: list[Program] = []
    pattern = r"^#+ (.*?)$|^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?"
    heading = ""
    for match in re.finditer(pattern, page, re.MULTILINE | re.DOTALL):
        heading = match[1] or heading
        if match[2]:
            found.append(Program(f"{heading} {match.start()}", match[2], match[3]))
    return found


PROGRAMS = [*programs(PAGE), *programs(OPERATIONS)]
ON_SQLITE = [program for program in PROGRAMS if GIVEN not in program.text]
ON_POSTGRES = [program for program in PROGRAMS if GIVEN in program.text]


def section(title: str) -> str:
    """A section of the page, without those after it."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def table(title: str, first: str) -> dict[str, list[str]]:
    """The rows of the table in a section whose first column is called so, by their first cells."""
    rows = re.search(
        rf"^\| {re.escape(first)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", section(title), re.MULTILINE
    )
    assert rows, (title, first)
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[1].splitlines()]
    return {row[0].strip("`"): row[1:] for row in cells}


def run(text: str, folder: Path, **variables: str) -> str:
    """What a program prints that has to end well and without a word on standard error."""
    path = folder / "program.py"
    path.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", path],
        cwd=folder,
        env=environment() | variables,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("program", ON_SQLITE, ids=lambda program: program.name)
def test_a_program_prints_what_is_shown(program: Program, tmp_path: Path) -> None:
    assert program.output is not None, "a program without what it prints"
    assert run(program.text, tmp_path) == program.output


@pytest.mark.parametrize("program", ON_POSTGRES, ids=lambda program: program.name)
def test_a_program_on_postgres_prints_what_is_shown(
    program: Program, tmp_path: Path, postgres_dsn: str
) -> None:
    migrate(postgres_dsn)
    assert program.output is not None, "a program without what it prints"
    assert run(program.text, tmp_path, **{GIVEN: postgres_dsn}) == program.output


def test_the_first_program_works_on_postgres_with_one_line_changed(
    tmp_path: Path, postgres_dsn: str
) -> None:
    first = PROGRAMS[0]
    (line,) = re.findall(r"^```py\n(STORE = .*)\n```", section("PostgreSQL"), re.MULTILINE)
    changed, lines = re.subn(r"^STORE = .*$", line, first.text, flags=re.MULTILINE)
    assert lines == 1
    shown = re.findall(r'"(.*)"', line)[0]
    assert run(changed.replace(shown, postgres_dsn), tmp_path) == first.output


def test_the_smallest_program_of_the_readme(tmp_path: Path) -> None:
    (program,) = programs(README.partition("## Any other work")[2])
    assert run(program.text, tmp_path) == program.output


@pytest.mark.parametrize("page", [PAGE, OPERATIONS], ids=["queue", "operations"])
def test_every_block_of_code_is_one_of_the_programs_or_of_a_kind_that_is_none(page: str) -> None:
    fences = re.findall(r"^```(\w+)$", page, re.MULTILINE)
    assert fences.count("python") == len(programs(page))
    assert fences.count("text") == sum(each.output is not None for each in programs(page))
    assert set(fences) <= {"python", "text", "py", "sh", "sql", "toml", "ini", "dockerfile"}


def test_programs_are_short_and_complete() -> None:
    for program in PROGRAMS:
        lines = [line for line in program.text.splitlines() if line.strip()]
        assert len(lines) <= 40, program.name
        assert max(map(len, lines)) <= 120, program.name
        ast.parse(program.text)


def test_every_choice_of_an_enqueue_is_explained() -> None:
    assert list(table("Choices", "choice")) == list(JobChoices.__annotations__)


def test_every_setting_of_a_kind_is_explained() -> None:
    taken = list(inspect.signature(Handlers.register).parameters)[2:]
    assert sorted(table("Settings of a kind", "setting")) == sorted(taken)
    assert set(inspect.signature(Handlers.add).parameters) >= set(taken)


def test_every_setting_of_a_worker_is_explained_with_its_default() -> None:
    rows, settings = table("Settings of a worker", "`WorkerSettings`"), WorkerSettings()
    assert sorted(rows) == sorted(field.name for field in fields(WorkerSettings))
    for name, (default, _) in rows.items():
        assert name == "keep_s" or default.strip("`") == shown(getattr(settings, name)), name


def test_every_rule_of_a_queue_is_explained_with_its_default() -> None:
    rows, rules = table("Rules of a queue", "`QueueRules`"), QueueRules(name="")
    assert list(rows) == [name for name in QueueRules.__struct_fields__ if name != "name"]
    for name, (default, _) in rows.items():
        assert default.strip("`") == shown(getattr(rules, name)), name


def shown(value: object) -> str:
    if value == ():
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    return str(dict(value) if isinstance(value, Mapping) else value)


def test_every_state_is_explained_and_whether_it_is_final() -> None:
    rows = table("States", "state")
    assert list(rows) == list(JobState)
    assert {state for state, row in rows.items() if row[1].startswith("final")} == FINAL


def test_what_is_said_of_retention_is_so() -> None:
    days = {state: row[0] for state, row in table("Retention", "state").items()}
    assert days == {state: f"{s / _DAY_S:g} days" for state, s in DEFAULT_KEEP_S.items()}


def test_every_answer_is_explained() -> None:
    answers = [row.partition("(")[0] for row in table("Answers", "answer")]
    assert answers == [kind.__name__ for kind in ANSWERS]


def test_every_field_of_a_filter_is_named() -> None:
    text = section("Dead letters")
    assert [name for name in JobFilter.__struct_fields__ if f"`{name}`" not in text] == []


def test_methods_that_the_text_names_exist() -> None:
    text = re.sub(r"^```.*?^```", "", PAGE, flags=re.MULTILINE | re.DOTALL)
    named = re.findall(r"`(?:await )?queue\.(\w+)\(", text)
    named += [row.partition("(")[0] for row in table("Queues", "call")]
    assert len(named) > 5
    assert [name for name in named if not hasattr(Queue, name)] == []


def test_every_alert_is_explained() -> None:
    rows = re.findall(r"^\| `([a-z ]+)` \| ", chapter_of_operations("Alerts"), re.MULTILINE)
    assert rows == list(AlertKind)


def test_every_order_to_workers_is_explained() -> None:
    text = chapter_of_operations("Orders")
    assert [order for order in GROUPS["workers"][1] if order and f"`{order}`" not in text] == []


def test_every_command_is_listed() -> None:
    text = chapter_of_operations("Commands")
    assert [name for name in (*COMMANDS, *GROUPS) if f"`mailrace {name}`" not in text] == []
    for name, (_, commands) in GROUPS.items():
        (row,) = re.findall(rf"^\| `mailrace {name}` \| (.*)$", text, re.MULTILINE)
        assert [word for word in commands if word and f"`{word}`" not in row] == []


def test_a_process_has_as_many_connections_as_is_said() -> None:
    rows = re.findall(r"^\| (.*?) \| (\d+) \|", chapter_of_operations("Connections"), re.MULTILINE)
    told = {who: int(number) for who, number in rows}
    address = "postgresql://ann@db.example/app"
    assert told["a working process"] == PostgresStore(address).connections
    assert told["the same with `listen=off`"] == PostgresStore(f"{address}?listen=off").connections


def chapter_of_operations(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", OPERATIONS, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def anchors(page: str) -> list[str]:
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    return [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in headings]


@pytest.mark.parametrize(
    "page", sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]), ids=lambda page: page.name
)
def test_links_to_a_heading_lead_to_one(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", text):
        target = (page.parent / path).read_text(encoding="utf-8") if path else text
        assert anchor in anchors(target), f"{path}#{anchor}"


def test_the_contents_are_in_the_order_of_the_page() -> None:
    contents, _, page = PAGE.partition("\n## ")
    links = re.findall(r"\]\(#([^)]+)\)", contents)
    assert links == anchors(f"## {page}")


def promises() -> list[tuple[str, str]]:
    """The rows of the chapter: what is promised, and what shows it."""
    (chapter,) = re.findall(
        r"^## The durable queue\n(.*?)(?=^## |\Z)", GUARANTEES, re.MULTILINE | re.DOTALL
    )
    rows = re.findall(r"^\| (.*) \| (.*) \|$", chapter, re.MULTILINE)
    return [row for row in rows if "`" in row[1]]


@pytest.mark.parametrize("row", promises(), ids=lambda row: row[0][:50])
def test_every_promise_names_tests_that_are_there(row: tuple[str, str]) -> None:
    found = re.findall(r"`(test_\w+\.py)`: ((?:`\w+`(?:, )?)+)", row[1])
    assert found
    for module, tests in found:
        paths = list((ROOT / "tests").rglob(module))
        text = "".join(path.read_text(encoding="utf-8") for path in paths)
        for test in re.findall(r"`(\w+)`", tests):
            assert re.search(rf"\b(def|class|=) {test}\b|^{test} =", text, re.MULTILINE), test


def test_there_are_promises() -> None:
    assert len(promises()) > 20


def test_a_row_that_names_no_test_would_be_seen() -> None:
    (chapter,) = re.findall(
        r"^## The durable queue\n(.*?)(?=^### )", GUARANTEES, re.MULTILINE | re.DOTALL
    )
    rows: list[Any] = re.findall(r"^\| (?!promise|-)(.*) \|$", chapter, re.MULTILINE)
    assert len(rows) == len(promises())
