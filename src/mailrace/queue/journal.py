"""The journal beside a process: what its jobs had come to when the process died.

An append-only file in the page cache: a record is one `write`, not synced. It outlives any death
of the process; after a power cut it may be incomplete, and then it is not trusted.
"""

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from mailrace.errors import UnavailableError
from mailrace.queue.jobs import Finished

# Rewritten without what the store has when it has grown to this size.
_COMPACT_BYTES = 4 * 1024 * 1024


class Journal:
    """The writing side, held by one process through a lock that the kernel drops when it dies."""

    def __init__(self, path: Path, boot: str, file: int) -> None:
        self.path = path
        self._boot = boot
        self._file = file
        self._size_bytes = 0
        self._open: dict[int, bytes] = {}

    @classmethod
    def create(cls, path: Path, boot: str) -> Self:
        """Makes and locks the file.

        Args:
            path: Where; its folder is made if need be.
            boot: What names the present run of the machine (`boot_id`).
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            journal = cls(path, boot, _create_locked(path))
        except OSError as error:
            raise _unavailable(path, error) from error
        journal._write(_header(boot))
        return journal

    def started(self, job_id: int, lease: int) -> None:
        """Notes that from now on the far side may have the job.

        Raises:
            UnavailableError: It could not be noted; the job must not go out.
        """
        record = b"[%d,%d]\n" % (job_id, lease)
        self._write(record)
        self._open[job_id] = record

    def finished(self, record: Finished) -> None:
        """Notes how the attempt ended, before anything else is done with it.

        Raises:
            UnavailableError: It could not be noted; the store has to be told all the same.
        """
        line = msgspec.json.encode(record) + b"\n"
        self._open[record.id] = line
        self._write(line)

    def settled(self, records: list[Finished]) -> None:
        """Forgets attempts that the store has."""
        for record in records:
            self._open.pop(record.id, None)
        if self._size_bytes > _COMPACT_BYTES:
            self._compact()

    def close(self, *, keep: bool = False) -> None:
        """Lets the file go; removes it unless it holds what the store has not got. Idempotent."""
        if self._file < 0:
            return
        if not self._open and not keep:
            self.path.unlink(missing_ok=True)
        os.close(self._file)
        self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self, line: bytes) -> None:
        try:
            written = os.write(self._file, line)
            if written < len(line):  # a disk that is filling up takes a part
                os.ftruncate(self._file, self._size_bytes)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise _unavailable(self.path, error) from error
        self._size_bytes += written

    def _compact(self) -> None:
        """Replaces the file by one with what is still open: whole at every moment."""
        draft = self.path.with_suffix(".new")
        old, old_bytes = self._file, self._size_bytes
        try:
            self._file, self._size_bytes = _create_locked(draft), 0
            self._write(_header(self._boot) + b"".join(self._open.values()))
            draft.replace(self.path)
        except (OSError, UnavailableError):
            # The old file is whole; only its size is not what it might be.
            if self._file != old:
                os.close(self._file)
            self._file, self._size_bytes = old, old_bytes
            return
        os.close(old)


class JournalReading(msgspec.Struct, frozen=True):
    """What a journal says.

    Attributes:
        trusted: It is whole: written since the machine's last start.
        started: The (id, lease) of jobs that went out and have no result.
        finished: The results.
    """

    trusted: bool
    started: list[tuple[int, int]]
    finished: list[Finished]


def read_journal(path: Path, boot: str) -> JournalReading:
    """Reads what a process noted; a file that is not there says nothing and is not trusted."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return JournalReading(trusted=False, started=[], finished=[])
    started: dict[int, int] = {}
    finished: dict[int, Finished] = {}
    for line in lines[1:-1]:  # the last one is empty, or was cut off
        try:
            record = _decode(line)
        except msgspec.MsgspecError:  # torn by a power cut
            continue
        if isinstance(record, Finished):
            finished[record.id] = record
            started.pop(record.id, None)
        else:
            started[record[0]] = record[1]
            finished.pop(record[0], None)
    return JournalReading(
        trusted=boot != "" and lines[0] + b"\n" == _header(boot),
        started=list(started.items()),
        finished=list(finished.values()),
    )


def holder_is_dead(path: Path) -> bool:
    """Whether nobody holds the journal: its process is gone, however it ended."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # It may have been replaced between the two calls; then it is the new file that counts.
        return os.path.samestat(os.fstat(file), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False
    finally:
        os.close(file)


def boot_id() -> str:
    """What names the present run of this machine; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _decode(line: bytes) -> Finished | tuple[int, int]:
    if line.count(b",") == 1:
        return msgspec.json.decode(line, type=tuple[int, int])
    return msgspec.json.decode(line, type=Finished)


def _header(boot: str) -> bytes:
    return b'{"mailrace_journal":1,"boot":"%s"}\n' % boot.encode()


def _create_locked(path: Path) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _unavailable(path: Path, error: OSError) -> UnavailableError:
    return UnavailableError(
        f"the journal {path} cannot be written: {error.strerror}",
        hint="free some space; nothing is lost",
    )
