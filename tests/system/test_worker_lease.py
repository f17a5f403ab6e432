"""`mailrace worker --lease`: how soon others do the jobs of a process that is gone."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.command import run
from tests.system.test_worker_command import pid_of
from tests.system.workbench import (
    WorkerProcess,
    enqueue,
    jobs_of,
    states_of,
    until_lines,
    write_tasks,
)

STORE = "sqlite:///mailrace.db"
# Far below the default lease, and far above the one that is given.
SOON_S = 12.0


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_tasks(tmp_path)
    return tmp_path


def test_the_job_of_a_process_that_was_killed_on_another_machine_runs_again_soon(
    folder: Path, postgres_dsn: str
) -> None:
    """Its journal cannot be read: only the end of its lease tells that it is gone."""
    enqueue(postgres_dsn, "hold", ["a"])
    words = ("--store", postgres_dsn, "--lease", "2")
    with WorkerProcess(folder, *words, MAILRACE_JOURNALS=str(folder / "one")) as victim:
        until_lines(folder / "held.txt", 1)
        with WorkerProcess(folder, *words, MAILRACE_JOURNALS=str(folder / "other")) as other:
            other.until("working")
            killed_s = time.monotonic()
            victim.process.kill()
            assert until_lines(folder / "held.txt", 2) == ["a", "a"]
            assert time.monotonic() - killed_s < SOON_S
            (folder / "go").touch()
            other.terminate()
            assert other.until_end() == 0
    assert states_of(postgres_dsn) == {"completed": 1}


def test_the_job_of_a_process_that_is_frozen_runs_again_soon(folder: Path) -> None:
    """What a supervisor is set to its processes are set to."""
    enqueue(STORE, "hold", ["a"])
    with WorkerProcess(
        folder, "--processes", "2", "--lease", "2", MAILRACE_HEARTBEAT="0.3"
    ) as supervisor:
        for _ in range(2):
            supervisor.until("working")
        until_lines(folder / "held.txt", 1)
        (process_id,) = [row.process_id for row in jobs_of(STORE)]
        victim = pid_of(STORE, process_id)
        os.kill(victim, signal.SIGSTOP)
        frozen_s = time.monotonic()
        assert until_lines(folder / "held.txt", 2) == ["a", "a"]
        assert time.monotonic() - frozen_s < SOON_S
        (folder / "go").touch()
        os.kill(victim, signal.SIGCONT)
        supervisor.terminate()
        assert supervisor.until_end() == 0
    assert states_of(STORE) == {"completed": 1}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--lease", "0.5"], "--lease is 0.5; give seconds, one or more"),
        (["--lease", "nan"], "--lease is nan; give seconds, one or more"),
        (["--heartbeat", "11"], "--heartbeat is 11; give 0.1 to 10 seconds"),
        (
            ["--lease", "8", "--heartbeat", "4"],
            "--heartbeat is 4 and --lease 8; give less than half of the lease, 4 seconds",
        ),
    ],
)
def test_what_cannot_be_held_is_said_before_a_store_is_made(
    folder: Path, words: list[str], says: str
) -> None:
    done = run("worker", "tasks:handlers", *words, cwd=folder)
    assert (done.returncode, done.stderr) == (2, f"mailrace: {says}\n")
    assert not (folder / "mailrace.db").exists()
