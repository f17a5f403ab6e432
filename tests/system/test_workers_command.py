"""`mailrace workers` and `stats`: who works, how it goes, and orders that are answered."""

import signal
from pathlib import Path

import pytest

from tests.system.workbench import (
    Command,
    WorkerProcess,
    enqueue,
    lines_of,
    until_lines,
    write_tasks,
)

STORE = "sqlite:///mailrace.db"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("DATABASE_URL", "MAILRACE_STORE"):
        monkeypatch.delenv(name, raising=False)
    write_tasks(tmp_path)
    return tmp_path


def test_a_process_is_seen_paused_resumed_and_stopped(folder: Path, command: Command) -> None:
    """Orders are repeated until the process has begun to listen to them."""
    enqueue(STORE, "note", ["a"])
    with WorkerProcess(folder, "--concurrency", "3", "--queue", "default") as worker:
        until_lines(folder / "noted.txt", 1)
        seen = command.json("workers")
        (view,) = seen["workers"]
        assert (view["health"], view["process"]["pid"]) == ("alive", worker.process.pid)
        assert (view["process"]["concurrency"], view["process"]["queues"]) == (3, ["default"])
        assert seen["supervisors"] == []
        number = view["process"]["id"]
        heads, row = command.text("workers").splitlines()
        assert heads.split()[:5] == ["process", "host", "pid", "state", "health"]
        assert row.split()[0] == str(number)

        for _ in range(30):
            told = command.json("workers", "pause", "--target", f"process:{number}", "--wait", "1")
            if not told["silent"]:
                break
        assert [answer["text"] for answer in told["answers"]] == ["paused now"]
        enqueue(STORE, "note", ["b"])
        assert command.text("workers", "resume") == f"process:{number}: working now\n"
        assert until_lines(folder / "noted.txt", 2) == ["a", "b"]
        assert "breakers reset" in command.text("workers", "reset-breakers")

        stats = command.json("stats")
        (queue,) = stats["figures"]["queues"]
        assert (queue["queue"], queue["completed"], queue["workers"]) == ("default", 2, 1)
        assert stats["alerts"] == []
        assert "completed 2, failed 0, retried 0" in command.text("stats", "--hours", "2")

        assert command.json("workers", "stop")["silent"] == []
        assert worker.until_end() == 0
    text = command.text("workers")
    assert text == "nobody works on it; start somebody with mailrace worker\n"


def test_a_supervisor_is_told_how_many_processes_to_keep(folder: Path, command: Command) -> None:
    with WorkerProcess(folder, "--processes", "1", "--max", "3") as supervisor:
        name = supervisor.until("supervising")["name"]
        supervisor.until("working")
        for _ in range(30):
            (seen,) = command.json("workers")["supervisors"] or [{}]
            told = seen and command.json("workers", "scale", "2", "--wait", "1")
            if told and not told["silent"]:
                break
        assert [answer["done"] for answer in told["answers"]] == [True]
        supervisor.until("working")
        assert command.text("workers", "scale", "4").startswith(f"supervisor:{name}: not done: 4")
        (seen,) = command.json("workers")["supervisors"]
        assert (seen["processes_min"], seen["processes_max"]) == (1, 3)
        workers, supervisors = command.text("workers").split("\n\n")
        assert len(workers.splitlines()) == 3
        assert supervisors.splitlines()[1].split()[:1] == [name]
        supervisor.process.send_signal(signal.SIGTERM)
        assert supervisor.until_end() == 0


def test_a_job_that_runs_is_cancelled(folder: Path, command: Command) -> None:
    (job,) = enqueue(STORE, "hold", ["a"])
    with WorkerProcess(folder, "--verbose", "--redis", "redis://127.0.0.1:1") as worker:
        until_lines(folder / "held.txt", 1)
        said = command.text("jobs", "cancel", str(job))
        assert said == "1 job cancelled; 1 of them running, and asked to stop\n"
        assert worker.until("cancelled")["job"] == job
        worker.process.send_signal(signal.SIGTERM)
        assert worker.until_end() == 0
    assert command.json("jobs", "show", str(job))["row"]["state"] == "cancelled"


def test_why_a_queue_stands_still(folder: Path, command: Command) -> None:
    enqueue(STORE, "note", ["a", "b"])
    assert command.json("queues", "why", "default") == {
        "queue": "default",
        "reasons": ["no process alive works on it"],
    }
    command.text("queues", "pause", "default")
    assert "paused" in command.text("queues", "why", "default")
    assert lines_of(folder / "noted.txt") == []


def test_what_cannot_be_ordered(folder: Path, command: Command) -> None:
    assert command.refused("workers").startswith("there is no store at mailrace.db")
    assert command.refused("stats").startswith("there is no store at mailrace.db")
    assert list(folder.iterdir()) == [folder / "tasks.py"]
    command.text("migrate")
    for words, says in {
        ("pause",): "no process alive is addressed by 'all'; look with mailrace workers who is",
        ("scale", "3"): "no supervisor alive is addressed by 'all'",
        ("stop", "--target", "bob"): "'bob' is nobody who can be told anything; give all, node:",
        ("scale",): "mailrace workers scale needs",
    }.items():
        assert command.refused("workers", *words).startswith(says)
    assert (
        command.refused("stats", "--hours", "0") == "--hours is 0.0; give more than 0, at most 8784"
    )
    assert "processes: none" in command.text("stats")
