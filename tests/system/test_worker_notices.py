"""What `mailrace worker` says unasked, and how it takes its processes and signals."""

import asyncio
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from mailrace.cli.duties import target_per_hour
from mailrace.cli.notices import Failures, Obstacles
from mailrace.cli.together import Together
from mailrace.errors import MisuseError
from mailrace.jobs import open_queue
from mailrace.queue import Attempted, JobState, Result
from mailrace.queue.jobs import ClaimedJob, Finished
from mailrace.queue.states import Step
from mailrace.queue.supervisor_settings import cores
from tests.support.clock import VirtualClock
from tests.support.command import run
from tests.system.workbench import Command, WorkerProcess, enqueue, until_lines, write_tasks

STORE = "sqlite:///mailrace.db"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_tasks(tmp_path)
    return tmp_path


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


class Said:
    """Lines that would be written."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []

    def __call__(self, event: str, **facts: object) -> None:
        self.lines.append((event, facts))

    def count(self, event: str) -> int:
        return sum(line[0] == event for line in self.lines)


def attempted(state: JobState, *, kind: str = "note", detail: str = "no") -> Attempted:
    job = ClaimedJob(
        1, 1, 1, False, kind, "default", "", 0, 0, None, None, None, 0, None, msgspec.Raw(b"1")
    )
    step = {JobState.FAILED: Step.FAIL, JobState.UNCERTAIN: Step.LOSE}.get(state, Step.COMPLETE)
    record = Finished(1, 1, step, state, None, "reason", detail, 0, "data")
    return Attempted(job=job, result=Result(step, "reason", detail), record=record, worker=1)


async def test_so_many_lines_a_minute_and_then_how_many_more() -> None:
    said, clock = Said(), VirtualClock()
    failures = Failures(said, clock, ends=True, kinds={"note"})
    for state in (JobState.FAILED, JobState.UNCERTAIN, JobState.COMPLETED):
        for _ in range(25):
            failures.attempted(attempted(state))
    assert (said.count("failed"), said.count("uncertain"), len(said.lines)) == (20, 0, 20)
    failures.sum_up()
    assert len(said.lines) == 20
    await clock.advance(60.0)
    failures.attempted(attempted(JobState.UNCERTAIN))
    assert said.lines[20][1] == {"jobs": 30}
    assert said.lines[21][0] == "uncertain"
    failures.sum_up(now=True)
    assert len(said.lines) == 22


def test_a_detail_is_one_line_and_cut() -> None:
    said = Said()
    failures = Failures(said, VirtualClock(), ends=True, kinds={"note"})
    failures.attempted(attempted(JobState.FAILED, detail="a\n" * 1000))
    ((_, facts),) = said.lines
    assert len(str(facts["detail"])) == 200
    assert "\n" not in str(facts["detail"])
    assert (facts["job"], facts["kind"], facts["category"]) == (1, "note", "data")


async def test_an_obstacle_is_named_once_a_minute() -> None:
    said, clock = Said(), VirtualClock()
    obstacles = Obstacles(said, clock)
    obstacles.said("said elsewhere")
    for problem in ("no limit", "no limit", "said elsewhere"):
        obstacles.note("in trouble", problem)
    assert said.lines == [("in trouble", {"problem": "no limit"})]
    await clock.advance(60.0)
    obstacles.note("in trouble", "no limit")
    assert len(said.lines) == 2


def test_signals_within_half_a_second_are_one() -> None:
    together = Together()
    assert [together.counts(at) for at in (5.0, 5.1, 5.49, 5.5, 5.9, 6.1)] == [
        True, False, False, True, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, None), ("10000/h", 10_000.0), ("5/s", 18_000.0), ("48/day", 2.0)],
)
def test_a_target_is_a_rate(text: str | None, expected: float | None) -> None:
    assert target_per_hour(text) == expected


@pytest.mark.parametrize("text", ["", "10000", "fast", "0/h"])
def test_what_is_no_rate_is_no_target(text: str) -> None:
    with pytest.raises(MisuseError, match="--target is"):
        target_per_hour(text)


def test_it_says_what_failed_and_what_has_no_handler_or_no_limit(folder: Path) -> None:
    async def limit() -> None:
        async with open_queue(STORE) as queue:
            await queue.configure("limited", limits=("nowhere",))

    asyncio.run(limit())
    enqueue(STORE, "note", ["a"], queue="limited")
    enqueue(STORE, "strange", ["a", "b", "c"])
    (job,) = enqueue(STORE, "refuse", ["this"], priority=9)
    with WorkerProcess(folder) as worker:
        events = {"failed", "no handler here: jobs of this kind are put off", "in trouble"}
        while not events <= {line["event"] for line in worker.log}:
            worker.until_next()
        worker.terminate()
        assert worker.until_end() == 0
    (failed,) = [line for line in worker.log if line["event"] == "failed"]
    assert (failed["job"], failed["kind"], failed["category"]) == (job, "refuse", "data")
    assert "this is no good" in failed["detail"]
    assert sum(line.get("kind") == "strange" for line in worker.log) == 1
    assert any("nowhere" in line["problem"] for line in worker.log if "problem" in line)


def test_a_signal_and_its_echo_are_one(folder: Path) -> None:
    enqueue(STORE, "hold", ["a"])
    with WorkerProcess(folder, "--grace", "600") as worker:
        until_lines(folder / "held.txt", 1)
        worker.terminate()
        worker.process.send_signal(signal.SIGINT)
        worker.until("draining", in_hand=1)
        (folder / "go").touch()
        assert worker.until_end() == 0
    assert "stopping at once" not in {line["event"] for line in worker.log}


def test_by_default_there_is_a_process_for_each_core(folder: Path) -> None:
    with WorkerProcess(folder, MAILRACE_PROCESSES="") as worker:
        if cores() == 1:
            worker.until("working")
        else:
            assert worker.until("supervising")["processes"] == cores()
            worker.until("process started")
        worker.terminate()
        assert worker.until_end() == 0


def test_a_target_alone_means_two_to_ten_processes(folder: Path) -> None:
    with WorkerProcess(folder, MAILRACE_TARGET="10000/h") as worker:
        told = worker.until("supervising")
        assert (told["min"], told["max"], told["processes"]) == (2, 10, 2)
        worker.until("process started")
        worker.terminate()
        assert worker.until_end() == 0


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_folder_for_journals_that_cannot_be_used(folder: Path, processes: str) -> None:
    (folder / "mailrace.db.journals").write_text("a file", encoding="utf-8")
    done = run("worker", "tasks:handlers", "--processes", processes, cwd=folder)
    assert done.returncode == 2
    assert done.stderr.startswith("mailrace: the folder for journals mailrace.db.journals cannot")
    assert "working" not in done.stderr


def test_a_limit_says_who_waits_for_it(command: Command) -> None:
    enqueue(STORE, "note", ["a"])
    command.json("limits", "set", "mail of ann", "100/h", "--margin", "0.1")
    command.json("limits", "set", "idle", "100/s")
    command.json("queues", "set", "mail", "--limit", "mail of {tenant}")
    one = command.json("limits", "why", "mail of ann")
    assert (one["queues"], one["next_slot_in_s"], one["margin"]) == (["mail"], 0.0, 0.1)
    assert command.text("limits", "why", "mail of ann").splitlines() == [
        "it lets go 100/h, 10% kept back: one slot every 40 s",
        "its next free slot is now",
        "queues that wait for it: mail",
    ]
    assert "no queue waits for it" in command.text("limits", "why", "idle")
    assert command.refused("limits", "why", "other").startswith("there is no limit 'other'; in")


def test_the_backup_of_the_other_kind_of_store_is_named(folder: Path, command: Command) -> None:
    (folder / "copy.zip").write_bytes(b"PK\3\4")
    (folder / "copy.db").write_bytes(b"SQLite format 3\0")
    assert "is the backup of a PostgreSQL store" in command.refused("restore", "copy.zip")
    said = command.refused("restore", "copy.db", "--store", "postgresql://127.0.0.1:1/x")
    assert "is the backup of a SQLite store" in said


def test_a_schedule_that_cannot_be_read_is_removed(folder: Path, command: Command) -> None:
    async def plan() -> None:
        async with open_queue(STORE) as queue:
            await queue.schedule("bad", "@every 5m", queue.job("note", "x"))

    asyncio.run(plan())
    with closing(sqlite3.connect(folder / "mailrace.db")) as connection, connection:
        connection.execute("UPDATE schedules SET job = '{\"odd\": 1}' WHERE name = 'bad'")
    assert command.text("schedules", "remove", "bad") == "bad removed\n"
    assert command.text("schedules") == "no schedules yet\n"
