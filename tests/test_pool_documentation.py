"""What docs/pool.md says is so: its programs are run, and its tables compared with the code."""

import ast
import inspect
import re
import subprocess
import sys
import textwrap
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import pytest

from mailrace.errors import MailraceError
from mailrace.pool import (
    Backoff,
    BreakerSettings,
    HealthSettings,
    Job,
    JobOptions,
    JobState,
    Levels,
    MemorySettings,
    Numbers,
    Outcome,
    Overflow,
    PaceSettings,
    Pool,
    PoolSettings,
    Reason,
    RetryBudget,
    RetryPolicy,
    RetrySchedule,
    errors,
)
from mailrace.pool.health import NEVER, Code
from mailrace.pool.histogram import Summary
from mailrace.pool.numbers import Times
from mailrace.pool.states import FINAL, diagram
from tests.support.command import environment

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "pool.md").read_text(encoding="utf-8")
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
LIMIT_S = 30.0

TABLES = [
    ("Settings of a pool", "setting", PoolSettings),
    ("Options of a job", "option", JobOptions),
    ("Retry policies", "`RetryPolicy`", RetryPolicy),
    ("Retry policies", "`Backoff`", Backoff),
    ("Retry policies", "`RetrySchedule`", RetrySchedule),
    ("Retry budgets", "`RetryBudget`", RetryBudget),
    ("Breaker settings", "`BreakerSettings`", BreakerSettings),
    ("Pace settings", "`PaceSettings`", PaceSettings),
    ("Memory settings", "`MemorySettings`", MemorySettings),
    ("Health settings", "`HealthSettings`", HealthSettings),
]


VALUES = [
    ("Fields of an outcome", Outcome),
    ("Fields of the numbers", Numbers),
    ("Fields of the numbers", Times),
    ("Fields of the numbers", Summary),
]


class Program(NamedTuple):
    """A program of the page and what it is said to print."""

    name: str
    text: str
    output: str | None


def programs() -> list[Program]:
    found: list[Program] = []
    pattern = r"^#+ (.*?)$|^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?"
    heading = ""
    for match in re.finditer(pattern, PAGE, re.MULTILINE | re.DOTALL):
        heading = match[1] or heading
        if match[2]:
            found.append(Program(f"{heading} {match.start()}", match[2], match[3]))
    return found


def section(title: str) -> str:
    """A section of the page, without those after it."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def table(title: str, first: str) -> list[list[str]]:
    """The rows of the table in a section whose first column is called so."""
    rows = re.search(
        rf"^\| {re.escape(first)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", section(title), re.MULTILINE
    )
    assert rows, (title, first)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[1].splitlines()]


def names(title: str, first: str) -> list[str]:
    return [row[0].strip("`") for row in table(title, first)]


def defaults(kind: type) -> dict[str, object]:
    """Fields, or arguments where there are none, with their defaults."""
    if not is_dataclass(kind):
        arguments = inspect.signature(kind).parameters.values()
        return {argument.name: argument.default for argument in arguments}
    return {
        field.name: field.default if field.default_factory is MISSING else field.default_factory()
        for field in fields(kind)
    }


def shown(value: object) -> str:
    """A default as the page writes it."""
    if isinstance(value, Levels):
        unhealthy = "" if value.unhealthy == NEVER else f", {value.unhealthy:g}"
        return f"Levels({value.degraded:g}{unhealthy})"
    if is_dataclass(value):
        return f"{type(value).__name__}()"
    if isinstance(value, tuple) and value and isinstance(value[0], type):
        kinds = ", ".join(kind.__name__ for kind in value)
        return f"({kinds},)" if len(value) == 1 else f"({kinds})"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value.value if isinstance(value, Enum) else value)


def run(text: str, folder: Path) -> str:
    """What a program prints that has to end well and without a word on standard error."""
    path = folder / "program.py"
    path.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", path],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("program", programs(), ids=lambda program: program.name)
def test_a_program_prints_what_is_shown(program: Program, tmp_path: Path) -> None:
    assert program.output is not None, "a program without what it prints"
    assert run(program.text, tmp_path) == program.output


def test_every_block_of_code_is_one_of_the_programs() -> None:
    fences = re.findall(r"^```(\w+)$", PAGE, re.MULTILINE)
    assert fences.count("python") == fences.count("text") == len(programs())
    assert set(fences) == {"python", "text", "mermaid"}


def test_the_three_lines_of_the_readme(tmp_path: Path) -> None:
    (lines,) = re.findall(r"^```py\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert len(lines.splitlines()) == 3
    program = (
        "import asyncio\nfrom mailrace import Pool\nurl = 'here'\n"
        "async def fetch(url):\n    return f'{url} it is'\n"
        f"async def main():\n{textwrap.indent(lines, '    ')}\nasyncio.run(main())\n"
    )
    assert run(program, tmp_path) == "here it is\n"


@pytest.mark.parametrize(("title", "first", "kind"), TABLES, ids=str)
def test_a_table_has_every_setting_with_its_default(title: str, first: str, kind: type) -> None:
    documented = {row[0].strip("`"): row[2].strip("`") for row in table(title, first)}
    assert documented == {name: shown(value) for name, value in defaults(kind).items()}
    for row in table(title, first):
        assert row[3].endswith((".", ",")), row


@pytest.mark.parametrize(("title", "kind"), VALUES, ids=str)
def test_a_table_has_every_field_of_a_value_in_its_order(title: str, kind: type) -> None:
    rows = table(title, f"`{kind.__name__}`")
    assert [row[0].strip("`") for row in rows] == list(inspect.get_annotations(kind))
    assert all(row[2].endswith(".") for row in rows)


def test_profiles_have_the_numbers_that_are_shown() -> None:
    rows = {row[0].strip("`"): row[1:] for row in table("Profiles", "setting")}
    profiles = [
        PoolSettings(),
        PoolSettings.high_performance(),
        PoolSettings.resource_constrained(),
    ]
    differing = {
        field.name
        for field in fields(PoolSettings)
        if len({shown(getattr(profile, field.name)) for profile in profiles}) > 1
    }
    assert rows.keys() == differing
    for name, values in rows.items():
        assert values == [shown(getattr(profile, name)) for profile in profiles], name


def test_every_overflow_policy_is_explained() -> None:
    assert names("Room", "`overflow`") == list(Overflow)


def test_every_health_code_is_explained() -> None:
    assert names("Health codes", "code") == list(Code)
    limits = set(
        re.findall(r"`(\w+)`", "".join(row[2] + row[3] for row in table("Health codes", "code")))
    )
    assert limits - {"queue_size"} == {
        field.name for field in fields(HealthSettings) if field.name != "failure_count_min"
    }


def test_every_reason_is_explained_with_final_states() -> None:
    assert names("Reasons", "reason") == list(Reason)
    for row in table("Reasons", "reason"):
        assert {JobState(state) for state in row[1].split(", ")} <= FINAL


def test_every_state_is_explained_and_the_picture_is_the_table_of_the_code() -> None:
    assert names("States", "state") == list(JobState)
    (picture,) = re.findall(r"^```mermaid\n(.*?)\n^```", PAGE, re.MULTILINE | re.DOTALL)
    assert picture == diagram()


def test_every_error_of_the_pool_is_explained() -> None:
    kinds = [
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type)
        and issubclass(kind, MailraceError)
        and kind.__module__ == errors.__name__
    ]
    assert [name for name in kinds if f"`{name}`" not in PAGE] == ["JobError"]


def test_links_within_the_page_lead_to_a_heading() -> None:
    headings = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in headings}
    links = re.findall(r"\]\(#([^)]+)\)", PAGE)
    assert links
    assert [link for link in links if link not in anchors] == []


def test_the_contents_are_in_the_order_of_the_page() -> None:
    contents, _, page = PAGE.partition("\n## ")
    headings = re.findall(r"^## (.*)$", f"## {page}", re.MULTILINE)
    anchors = [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in headings]
    links = re.findall(r"\]\(#([^)]+)\)", contents)
    assert links == [anchor for anchor in anchors if anchor in links]
    assert anchors[: len(links)] == links, "all up to the last one that is named"


def test_attributes_and_methods_that_the_text_names_exist() -> None:
    """Those of a pool, a job and the numbers, such as `pool.drain()`."""
    text = re.sub(r"^```.*?^```", "", PAGE, flags=re.MULTILINE | re.DOTALL)
    named = re.findall(r"(?<![.\w])(pool|job|current_job\(\)|numbers\(\))\.(\w+)", text)
    owners = {"pool": Pool, "job": Job, "current_job()": Job, "numbers()": Numbers}
    assert len(named) > 20
    assert [f"{who}.{what}" for who, what in named if not hasattr(owners[who], what)] == []


def test_every_hard_case_names_tests_that_are_there() -> None:
    (cases,) = re.findall(r"^### Hard cases\n(.*?)(?=^##)", GUARANTEES, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| (\d+) \| .* \| (.*) \|$", cases, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 25))
    for number, shown_by in rows:
        found = re.findall(r"`(test_\w+\.py)`: ((?:`\w+`(?:, )?)+)", shown_by)
        assert found, number
        for module, tests in found:
            paths = (ROOT / "tests").rglob(module)
            text = "".join(path.read_text(encoding="utf-8") for path in paths)
            for test in re.findall(r"`(\w+)`", tests):
                assert re.search(rf"\b(def|class|=) {test}\b|^{test} =", text, re.MULTILINE), test


def test_programs_are_short_and_complete() -> None:
    for program in programs():
        lines = [line for line in program.text.splitlines() if line.strip()]
        assert len(lines) <= 40, program.name
        assert max(map(len, lines)) <= 120, program.name
        ast.parse(program.text)
