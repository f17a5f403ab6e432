"""A journal that grows, is compacted, and meets a disk that is full."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mailrace.queue.journal as journal_module
from mailrace.errors import UnavailableError
from mailrace.queue import JobState, Step
from mailrace.queue.jobs import Finished
from mailrace.queue.journal import (
    Journal,
    holder_is_dead,
    read_journal,
    remove_journal,
)

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


class FullDisk:
    """Within it, `os.write` has only so much room."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, room_bytes: int) -> None:
        self._patch = monkeypatch
        self._room_bytes = room_bytes

    def __enter__(self) -> None:
        write = os.write

        def limited(file: int, data: bytes) -> int:
            part = data[: self._room_bytes]
            if not part:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._room_bytes -= len(part)
            return write(file, part)

        self._patch.setattr(os, "write", limited)

    def __exit__(self, *_: object) -> None:
        self._patch.undo()


def test_it_is_compacted_when_it_has_grown(
    path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_COMPACT_BYTES", 2000)
    largest = 0
    journal.started(1000, 1, once=True)
    for job_id in range(500):
        journal.started(job_id, 1, once=True)
        journal.finished(done(job_id))
        journal.settled([done(job_id)])
        largest = max(largest, path.stat().st_size)
    assert largest < 2300
    assert read_journal(path, BOOT).started == [(1000, 1, True)]
    assert not holder_is_dead(path)


def test_a_crash_at_any_moment_of_a_compaction_loses_nothing(
    path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for job_id in range(1, 5):
        journal.started(job_id, job_id, once=True)
    journal.finished(done(2, 2))
    journal.settled([done(2, 2)])
    journal.finished(done(3, 3))
    moments: list[Path] = []

    def crash() -> None:
        """Keeps what a death of the process would leave behind."""
        moments.append(tmp_path / f"moment-{len(moments)}")
        shutil.copytree(path.parent, moments[-1])

    write, replace = os.write, Path.replace

    def watched_write(file: int, data: bytes) -> int:
        crash()
        written = write(file, data)
        crash()
        return written

    def watched_replace(self: Path, target: Path) -> Path:
        crash()
        replace(self, target)
        crash()
        return target

    monkeypatch.setattr(os, "write", watched_write)
    monkeypatch.setattr(Path, "replace", watched_replace)
    journal._compact()
    monkeypatch.undo()
    assert len(moments) == 4
    for moment in moments:
        reading = read_journal(moment / path.name, BOOT)
        assert reading.trusted
        assert reading.started == [(1, 1, True), (4, 4, True)]
        assert [record for record in reading.finished if record.id != 2] == [done(3, 3)]
        remove_journal(moment / path.name)
        assert list(moment.iterdir()) == []


def test_a_compaction_that_fails_leaves_the_journal_as_it_was(
    path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.started(1, 1, once=True)
    with FullDisk(monkeypatch, room_bytes=0):
        journal._compact()
    assert list(path.parent.iterdir()) == [path]
    journal.started(2, 2, once=True)
    assert read_journal(path, BOOT).started == [(1, 1, True), (2, 2, True)]
    assert not holder_is_dead(path)


def test_a_result_of_an_old_lease_does_not_settle_the_new_one(path: Path, journal: Journal) -> None:
    journal.started(1, 1, once=True)
    journal.finished(done(1, 1))
    journal.started(1, 2, once=True)
    journal.settled([done(1, 1)])
    journal._compact()
    assert read_journal(path, BOOT).started == [(1, 2, True)]


def test_results_may_come_after_it_was_closed(path: Path, journal: Journal) -> None:
    """A handler of a session that is over; the store is told all the same."""
    journal.started(1, 1, once=True)
    journal.close(keep=True)
    with pytest.raises(UnavailableError):
        journal.finished(done(1))
    journal._size_bytes = 10**9
    journal.settled([done(1)])
    assert read_journal(path, BOOT).started == [(1, 1, True)]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("room_bytes", [0, 1, 3, 5])
def test_what_does_not_fit_is_refused_and_garbles_nothing(
    path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch, room_bytes: int
) -> None:
    journal.started(1, 1, once=True)
    with FullDisk(monkeypatch, room_bytes=room_bytes):
        with pytest.raises(UnavailableError, match="No space left") as caught:
            journal.started(22, 22, once=True)
        assert str(path) in caught.value.problem
    journal.started(3, 3, once=True)
    reading = read_journal(path, BOOT)
    assert (reading.trusted, reading.started) == (True, [(1, 1, True), (3, 3, True)])


def test_a_result_that_does_not_fit_is_written_by_the_next_compaction(
    path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.started(1, 1, once=True)
    with FullDisk(monkeypatch, room_bytes=9), pytest.raises(UnavailableError):
        journal.finished(done(1))
    assert read_journal(path, BOOT).started == [(1, 1, True)]
    journal._compact()
    assert read_journal(path, BOOT).finished == [done(1)]


def test_no_journal_is_left_where_its_head_does_not_fit(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = len(list(Path("/proc/self/fd").iterdir()))
    with FullDisk(monkeypatch, room_bytes=10), pytest.raises(UnavailableError):
        Journal.create(path, BOOT)
    assert list(path.parent.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == files


FILLS_UP = """
import resource, sys
from pathlib import Path
from mailrace.errors import UnavailableError
from mailrace.queue.journal import Journal
journal = Journal.create(Path(sys.argv[1]), "boot-1")
room = journal.path.stat().st_size + 5 * len("[1,1234,1]\\n") + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
noted = 0
try:
    for noted in range(100):
        journal.started(noted + 1, 1234, once=True)
except UnavailableError as error:
    print(noted, error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.started(5000, 5000, once=True)
journal.close(keep=True)
"""


@pytest.mark.parametrize(("more", "problem"), [(0, "too large"), (4, "No space left")])
def test_a_real_limit_on_the_file_is_met_and_survived(path: Path, more: int, problem: str) -> None:
    """A line for which there is no room at all, and one of which a part is taken."""
    ran = subprocess.run(
        [sys.executable, "-c", FILLS_UP, path, str(more)],
        capture_output=True,
        text=True,
        check=True,
    )
    noted = int(ran.stdout.split()[0])
    assert noted == 5
    assert problem in ran.stdout
    reading = read_journal(path, BOOT)
    assert reading.trusted
    assert [job_id for job_id, _, _ in reading.started] == [*range(1, noted + 1), 5000]
