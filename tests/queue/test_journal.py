"""The journal beside a process: what is written, what is read back, and after what mishaps."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mailrace.queue.journal as journal_module
from mailrace.errors import UnavailableError
from mailrace.queue import JobState, Step
from mailrace.queue.jobs import Finished
from mailrace.queue.journal import (
    Journal,
    boot_id,
    holder_is_dead,
    read_journal,
    remove_journal,
)
from mailrace.queue.states import after

BOOT = "boot-1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journals" / "one.journal"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal.create(path, BOOT)
    yield journal
    journal.close()


def done(job_id: int, lease: int = 1, detail: str = "detail") -> Finished:
    return Finished(job_id, lease, Step.COMPLETE, JobState.COMPLETED, None, "250", detail, 7)


@st.composite
def results(draw: st.DrawFn, job_id: int, lease: int) -> Finished:
    step = draw(st.sampled_from([Step.COMPLETE, Step.RETRY, Step.FAIL, Step.LOSE, Step.RELEASE]))
    text = st.text(st.characters(exclude_categories=["Cs"]))
    return Finished(
        job_id,
        lease,
        step,
        after(JobState.RUNNING, step),
        draw(st.none() | st.integers(0, 2**62)),
        draw(text),
        draw(text),
        draw(st.integers(0, 2**62)),
    )


def is_record(line: bytes) -> bool:
    try:
        journal_module._decode(line)
    except (msgspec.MsgspecError, ValueError):
        return False
    return True


class Noted:
    """What a journal has to say after a sequence of calls."""

    def __init__(self) -> None:
        self.started: dict[int, int] = {}
        self.finished: dict[int, Finished] = {}
        self.unsettled: list[Finished] = []

    def check(self, path: Path) -> None:
        reading = read_journal(path, BOOT)
        assert reading.trusted
        assert dict(reading.started) == self.started
        assert {record.id: record for record in reading.finished} == self.finished


@given(data=st.data(), steps=st.lists(st.sampled_from(["start", "finish", "settle", "compact"])))
@settings(deadline=None)
def test_what_is_written_is_read(data: st.DataObject, steps: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.journal"
        journal, noted, lease = Journal.create(path, BOOT), Noted(), 0
        for step in steps:
            job_id = data.draw(st.integers(1, 4))
            if step == "start":
                lease += 1
                # A second try on a fresh connection is under the same lease.
                noted.started.setdefault(job_id, lease)
                journal.started(job_id, noted.started[job_id])
                noted.finished.pop(job_id, None)
            elif step == "finish" and job_id in noted.started:
                record = data.draw(results(job_id, noted.started.pop(job_id)))
                journal.finished(record)
                noted.finished[job_id] = record
                noted.unsettled.append(record)
            elif step == "settle":
                journal.settled(noted.unsettled)
                noted.finished, noted.unsettled = {}, []
                journal._compact()
            else:
                journal._compact()
            if step in {"settle", "compact"}:
                noted.check(path)
        reading = read_journal(path, BOOT)
        assert dict(reading.started) == noted.started
        found = {record.id: record for record in reading.finished}
        assert {job_id: found[job_id] for job_id in noted.finished} == noted.finished
        journal.close()
        assert list(Path(folder).iterdir()) == []


def test_a_last_line_that_was_cut_off_is_no_harm(path: Path, journal: Journal) -> None:
    journal.started(1, 5)
    journal.finished(done(1, 5))
    journal.started(2, 6)
    whole = path.read_bytes()
    for cut in range(whole.rindex(b"[2,6]"), len(whole)):
        path.write_bytes(whole[:cut])
        reading = read_journal(path, BOOT)
        assert (reading.trusted, reading.started, reading.finished) == (True, [], [done(1, 5)])


def test_a_result_that_was_cut_off_leaves_the_job_started(path: Path, journal: Journal) -> None:
    journal.started(1, 5)
    journal.finished(done(1, 5))
    path.write_bytes(path.read_bytes()[:-3])
    assert read_journal(path, BOOT).started == [(1, 5)]


@given(garbage=st.binary(min_size=1).filter(lambda b: b"\n" not in b and b.strip(b" \t\r")))
@settings(deadline=None)
def test_garbage_in_the_middle_is_not_trusted(garbage: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.journal"
        journal = Journal.create(path, BOOT)
        journal.started(1, 5)
        with path.open("ab") as file:
            file.write(garbage + b"\n")
        journal.finished(done(2, 6))
        reading = read_journal(path, BOOT)
        assert reading.finished[-1] == done(2, 6)
        assert reading.trusted is is_record(garbage)
        journal.close()


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\xff\xfe",
        b"[1,",
        b"[1,2",
        b"{}",
        b"null",
        b'[1,2,"complete"]',
        b"\0\0\0\0",
        b"[" * 5000,
        b'[1,2,"complete","\xff"]',
        b'["1",2]',
        b'[1,2,"no such step","completed"]',
    ],
)
def test_a_line_that_nobody_can_read_is_not_trusted(
    path: Path, journal: Journal, garbage: bytes
) -> None:
    journal.started(1, 5)
    with path.open("ab") as file:
        file.write(garbage + b"\n")
    journal.started(2, 6)
    reading = read_journal(path, BOOT)
    assert not reading.trusted
    assert reading.started == [(1, 5), (2, 6)]


@pytest.mark.parametrize("boot", ["boot-2", "", "boot-1x"])
def test_another_start_of_the_machine_is_not_trusted(
    path: Path, journal: Journal, boot: str
) -> None:
    journal.started(1, 5)
    reading = read_journal(path, boot)
    assert (reading.trusted, reading.started) == (False, [(1, 5)])


def test_a_machine_that_does_not_name_its_start_is_not_trusted(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "a.journal", "")
    assert not read_journal(journal.path, "").trusted
    journal.close()


def test_a_missing_or_empty_file_is_not_trusted(tmp_path: Path) -> None:
    missing = read_journal(tmp_path / "missing.journal", BOOT)
    assert (missing.trusted, missing.started, missing.finished) == (False, [], [])
    (tmp_path / "empty.journal").touch()
    assert not read_journal(tmp_path / "empty.journal", BOOT).trusted


def test_a_file_that_cannot_be_read_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="cannot be read"):
        read_journal(tmp_path, BOOT)
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match="cannot be read"):
        holder_is_dead(tmp_path / "file" / "one.journal")


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match="cannot be written"):
        Journal.create(tmp_path / "file" / "one.journal", BOOT)


def test_this_machine_names_its_start() -> None:
    assert boot_id() == boot_id() != ""


# Whose journal it is


HOLDS = """
import sys
from pathlib import Path
from mailrace.queue.journal import Journal
journal = Journal.create(Path(sys.argv[1]), "boot-1")
journal.started(1, 1)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the journal."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def test_a_process_that_is_killed_is_dead(path: Path, holder: subprocess.Popen[str]) -> None:
    assert not holder_is_dead(path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert holder_is_dead(path)
    reading = read_journal(path, BOOT)
    assert (reading.trusted, reading.started) == (True, [(1, 1)])


def test_a_process_that_is_stopped_is_not_dead(path: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, holder.pid, os.WSTOPPED)
    assert not holder_is_dead(path)
    holder.send_signal(signal.SIGCONT)


def test_our_own_journal_is_held_until_it_is_closed(path: Path, journal: Journal) -> None:
    assert not holder_is_dead(path)
    assert not holder_is_dead(path)
    journal.close(keep=True)
    assert holder_is_dead(path)
    journal.close()
    assert path.exists()
    remove_journal(path)
    assert holder_is_dead(path)
