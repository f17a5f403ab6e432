"""`mailrace worker --memory`: a process that leaks is replaced, and no job knows of it."""

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from mailrace.cli.duties import memory_bytes
from mailrace.errors import MisuseError, UnavailableError
from tests.system.workbench import (
    Command,
    WorkerProcess,
    enqueue,
    jobs_of,
    lines_of,
    states_of,
    until_lines,
    write_tasks,
)

STORE = "sqlite:///mailrace.db"
# Every process imports the handlers, and so does not stay above its limit for the usual five
# seconds: these tests/queue/test_memory.py waits for on a clock of its own.
HOLD_S = 1.0
LEAKING = f"""

import os

from mailrace.queue import memory

memory._HOLD_S = {HOLD_S}
kept = []


@handlers.register("leak")
async def leak(text: str) -> None:
    kept.append(b"x" * (8 << 20))
    trace("leaked.txt", f"{{text}} {{os.getpid()}}")
    await asyncio.sleep(0.1)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_tasks(tmp_path)
    with (tmp_path / "tasks.py").open("a", encoding="utf-8") as tasks:
        tasks.write(LEAKING)
    return tmp_path


def test_a_process_that_leaks_is_replaced_and_every_job_is_done_once(folder: Path) -> None:
    jobs = 64
    enqueue(STORE, "leak", [str(n) for n in range(jobs)])
    with WorkerProcess(
        folder, "--memory", "120M", "--concurrency", "2", MAILRACE_LEASE="10"
    ) as supervisor:
        assert supervisor.until("supervising")["processes"] == 1
        first = supervisor.until("process started")["process"]
        assert supervisor.until("working")["memory"] == "120M"
        above = supervisor.until("above its memory limit: draining, to be replaced")
        assert above["pid"] == first
        assert above["used_mib"] > above["limit_mib"] == 120 > above["start_mib"] > 10
        replaced = supervisor.until("process replaced", process=first)
        assert (replaced["why"], replaced["place"]) == ("asked to be restarted", 1)
        assert supervisor.until("process started", place=1)["process"] != first
        until_lines(folder / "leaked.txt", jobs)
        supervisor.terminate()
        assert supervisor.until_end() == 0
    done = [line.split() for line in lines_of(folder / "leaked.txt")]
    assert Counter(text for text, _ in done) == {str(n): 1 for n in range(jobs)}
    by = Counter(int(pid) for _, pid in done)
    assert by[first] < jobs
    assert states_of(STORE) == {"completed": jobs}
    assert {(row.attempt, row.deaths) for row in jobs_of(STORE)} == {(1, 0)}
    assert not [line for line in supervisor.log if line["event"] == "process died"]


def test_a_limit_that_is_too_small_for_anything_makes_no_tight_loop(folder: Path) -> None:
    """Each one works for a while, so that what there is to do is done in the end."""
    enqueue(STORE, "note", ["a"])
    with WorkerProcess(folder, "--memory", "1M") as supervisor:
        first = supervisor.until("process replaced")
        again = supervisor.until("process replaced")
        assert (first["again_in_s"], again["again_in_s"] > 0) == (0.0, True)
        assert min(first["lived_s"], again["lived_s"]) > HOLD_S
        os.kill(supervisor.process.pid, signal.SIGTERM)
        assert supervisor.until_end() == 0
    assert states_of(STORE) == {"completed": 1}


def test_amounts_that_are_none_are_said_before_a_store_is_made(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("512", "-1G"):
        said = Command(capsys).refused("worker", "tasks:handlers", f"--memory={text}")
        assert said == f"--memory is {text!r}; write it like 512M or 1.5G: K, M or G"
    assert not (folder / "mailrace.db").exists()


def test_where_the_system_does_not_tell_a_limit_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def silent() -> int:
        raise UnavailableError("nothing is told", hint="set none")

    monkeypatch.setattr("mailrace.cli.worker.read_rss_bytes", silent)
    said = Command(capsys).refused("worker", "tasks:handlers", "--memory", "1G")
    assert said == "--memory: nothing is told; set none"
    assert not (folder / "mailrace.db").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("512M", 512 << 20), ("1.5g", 3 << 29), ("64K", 1 << 16), (" 2G ", 2 << 30)],
)
def test_k_m_and_g_are_powers_of_1024(text: str, expected: int) -> None:
    assert memory_bytes(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "512MB", "M", "0M", "1e3M", "1,5G", "٣M", "0.0001K", "9" * 400 + "G", "1M 2M", "1\nM"],
)
def test_what_is_no_amount_of_memory_is_refused(text: str) -> None:
    with pytest.raises(MisuseError, match="--memory is"):
        memory_bytes(text)
