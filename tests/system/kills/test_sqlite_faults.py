"""A file that others lock and a disk that is full: the same process goes on, nothing is lost."""

import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from mailrace.jobs import JobState
from tests.system.kills.books import KINDS, Books

LEASE_S = 1.5
SIZE_BYTES = 3 * 1024 * 1024


@pytest.mark.parametrize(("lease_s", "locked_s"), [(10.0, 1.0), (LEASE_S, 2 * LEASE_S)])
def test_a_file_that_another_program_locks_for_a_while(
    sqlite_books: Books, stack: ExitStack, lease_s: float, locked_s: float
) -> None:
    books = sqlite_books
    books.enqueue([*KINDS] * 30)
    process = books.process(stack, lease_s=lease_s, pause_s=0.02, grace_s=5.0)
    process.jobs_until("finished", 12)
    path = books.store.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, timeout=30.0, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(locked_s)
        connection.execute("ROLLBACK")
    books.until_final()
    process.drain()
    assert set(books.states()) == {JobState.COMPLETED}
    assert max(books.begun().values()) == 1
    books.check()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "none", str(folder)]
    if os.geteuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("only root can make a disk that is small, and not everywhere")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_is_full_for_a_while(
    small_disk: Path, tmp_path: Path, stack: ExitStack
) -> None:
    """Neither results nor the journal can be written; then there is room again."""
    books = Books(f"sqlite:///{small_disk}/jobs.db", tmp_path)
    books.journals = small_disk / "journals"
    books.enqueue([*KINDS] * 30)
    process = books.process(stack, pause_s=0.02, grace_s=5.0)
    process.jobs_until("finished", 12)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    process.until("loop failed")
    done = len(books.effects())
    time.sleep(1.5)
    ballast.unlink()
    books.until_final()
    process.drain()
    assert done < len(books.effects())
    assert set(books.states()) == {JobState.COMPLETED}
    assert max(books.begun().values()) == 1
    books.check()
