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
    JournalReading,
    boot_id,
    holder_is_dead,
    read_journal,
    remove_journal,
)
from mailrace.queue.states import STEPS, after

BOOT = "boot-1"
RUNNING = JobState.RUNNING


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journals" / "one.journal"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal.create(path, BOOT)
    yield journal
    journal.close()


def done(job_id: int, lease: int = 1, detail: str = "detail", at_ms: int = 7) -> Finished:
    return Finished(job_id, lease, Step.COMPLETE, JobState.COMPLETED, None, "250", detail, at_ms)


@st.composite
def results(draw: st.DrawFn, job_id: int, lease: int) -> Finished:
    step = draw(st.sampled_from(sorted(step for state, step in STEPS if state is RUNNING)))
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
        draw(text),
        draw(st.none() | text.map(msgspec.json.encode).map(msgspec.Raw)),
    )


def by_job(reading: JournalReading) -> dict[int, tuple[int, bool]]:
    return {job_id: (lease, once) for job_id, lease, once in reading.started}


def is_record(line: bytes) -> bool:
    try:
        journal_module._decode(line)
    except (msgspec.MsgspecError, ValueError):
        return False
    return True


class Noted:
    """What a journal has to say after a sequence of calls."""

    def __init__(self) -> None:
        self.started: dict[int, tuple[int, bool]] = {}
        self.finished: dict[int, Finished] = {}
        self.unsettled: list[Finished] = []

    def check(self, path: Path) -> None:
        reading = read_journal(path, BOOT)
        assert reading.trusted
        assert by_job(reading) == self.started
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
                held = noted.started.get(job_id, (lease, False))[0]
                noted.started[job_id] = held, data.draw(st.booleans())
                journal.started(job_id, held, once=noted.started[job_id][1])
                noted.finished.pop(job_id, None)
            elif step == "finish" and job_id in noted.started:
                record = data.draw(results(job_id, noted.started.pop(job_id)[0]))
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
        assert by_job(reading) == noted.started
        found = {record.id: record for record in reading.finished}
        assert {job_id: found[job_id] for job_id in noted.finished} == noted.finished
        journal.close()
        assert list(Path(folder).iterdir()) == []


def test_a_last_line_that_was_cut_off_is_no_harm(path: Path, journal: Journal) -> None:
    journal.started(1, 5, once=True)
    journal.finished(done(1, 5))
    journal.started(2, 6, once=True)
    whole = path.read_bytes()
    for cut in range(whole.rindex(b"[2,6,1]"), len(whole)):
        path.write_bytes(whole[:cut])
        reading = read_journal(path, BOOT)
        assert (reading.trusted, reading.started, reading.finished) == (True, [], [done(1, 5)])


def test_a_result_that_was_cut_off_leaves_the_job_started(path: Path, journal: Journal) -> None:
    journal.started(1, 5, once=True)
    journal.finished(done(1, 5))
    path.write_bytes(path.read_bytes()[:-3])
    assert read_journal(path, BOOT).started == [(1, 5, True)]


@given(garbage=st.binary(min_size=1).filter(lambda b: b"\n" not in b and b.strip(b" \t\r")))
@settings(deadline=None)
def test_garbage_in_the_middle_is_not_trusted(garbage: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.journal"
        journal = Journal.create(path, BOOT)
        journal.started(1, 5, once=True)
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
        b"[1,2]",
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
    journal.started(1, 5, once=True)
    with path.open("ab") as file:
        file.write(garbage + b"\n")
    journal.started(2, 6, once=True)
    reading = read_journal(path, BOOT)
    assert not reading.trusted
    assert reading.started == [(1, 5, True), (2, 6, True)]


@pytest.mark.parametrize("boot", ["boot-2", "", "boot-1x"])
def test_another_start_of_the_machine_is_not_trusted(
    path: Path, journal: Journal, boot: str
) -> None:
    journal.started(1, 5, once=True)
    reading = read_journal(path, boot)
    assert (reading.trusted, reading.started) == (False, [(1, 5, True)])


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


# What a process of before an upgrade left


OLD = b"""{"mailrace_journal":1,"boot":"boot-1"}
[1,5]
[2,6]
[2,6,"retry","retryable",1800000060000,"451","later",1800000000000]
[3,7]
[3,7,"complete","completed",null,"250","taken",1800000000001]
[4,8]
[4,8,"retry","retryable",1799999999000,"451","a time that has passed",1800000000000]
[5,9]
[5,9,"release","available",null,"","",1800000000002]
[6,10]
[6,1"""


def test_a_journal_of_the_first_version_is_read(tmp_path: Path) -> None:
    """Every job was to go out once then, and a retry named a time of day."""
    path = tmp_path / "old.journal"
    path.write_bytes(OLD)
    reading = read_journal(path, BOOT)
    assert reading.trusted
    assert reading.started == [(1, 5, True), (6, 10, True)]
    assert reading.finished == [
        Finished(2, 6, Step.RETRY, JobState.RETRYABLE, 60_000, "451", "later", 1800000000000),
        done(3, 7, "taken", 1800000000001),
        Finished(
            4, 8, Step.RETRY, JobState.RETRYABLE, 0, "451", "a time that has passed", 1800000000000
        ),
        Finished(5, 9, Step.RELEASE, JobState.AVAILABLE, at_ms=1800000000002),
    ]
    assert not read_journal(path, "boot-2").trusted


@pytest.mark.parametrize(
    "garbage",
    [
        b"[1,2,1]",
        b'[1,2,"retry"]',
        b'[1,2,"retry","retryable","soon","","",7]',
        b'[1,2,"retry","retryable",7,"","",null]',
        b"[[],[],[],[],[],[],[],[]]",
        b"{}",
        b"",
    ],
)
def test_a_line_of_the_first_version_that_nobody_can_read_is_not_trusted(
    tmp_path: Path, garbage: bytes
) -> None:
    path = tmp_path / "old.journal"
    path.write_bytes(b'{"mailrace_journal":1,"boot":"boot-1"}\n[1,5]\n' + garbage + b"\n[2,6]\n")
    reading = read_journal(path, BOOT)
    assert (reading.trusted, by_job(reading)) == (False, {1: (5, True), 2: (6, True)})


def test_a_version_of_the_future_is_not_trusted(path: Path, journal: Journal) -> None:
    path.write_bytes(path.read_bytes().replace(b'journal":2', b'journal":3'))
    assert not read_journal(path, BOOT).trusted


# Whose journal it is


HOLDS = """
import sys
from pathlib import Path
from mailrace.queue.journal import Journal
journal = Journal.create(Path(sys.argv[1]), "boot-1")
journal.started(1, 1, once=True)
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
    assert (reading.trusted, reading.started) == (True, [(1, 1, True)])


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
