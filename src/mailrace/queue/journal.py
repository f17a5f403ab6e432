"""The journal beside a process: what its jobs had come to when the process died.

An append-only file in the page cache: a record is one `write`, not synced. It outlives any death
of the process; after a power cut it may be incomplete, and then it is not trusted.
"""

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import Final, Self

import msgspec

from mailrace.errors import UnavailableError
from mailrace.queue.jobs import Finished
from mailrace.queue.states import JobState, Step

# Rewritten without what the store has when it has grown to this size.
_COMPACT_BYTES = 4 * 1024 * 1024
# The ones that can be read; the last is written. A process of before an upgrade may have left one.
_VERSIONS: Final = (1, 2)
_FIRST: Final = msgspec.json.Decoder(tuple[int, int, Step, JobState, int | None, str, str, int])


class Journal:
    """The writing side, held by one process through a lock that the kernel drops when it dies."""

    def __init__(self, path: Path, boot: str, file: int) -> None:
        self.path = path
        self._boot = boot
        self._file = file
        self._size_bytes = 0
        self._open: dict[tuple[int, int], bytes] = {}

    @classmethod
    def create(cls, path: Path, boot: str) -> Self:
        """Makes and locks the file.

        Args:
            path: Where; its folder is made if need be.
            boot: What names the present run of the machine (`boot_id`).

        Raises:
            UnavailableError: It cannot be made; nothing is left of it.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Nobody ever sees it unlocked: it would be taken for that of a dead process.
            file = _create_locked(_draft(path))
            _draft(path).rename(path)
            journal = cls(path, boot, file)
        except OSError as error:
            with contextlib.suppress(OSError):
                _draft(path).unlink(missing_ok=True)
            raise _not_written(path, error.strerror) from error
        try:
            journal._write(_header(boot))
        except BaseException:
            journal.close()
            raise
        return journal

    def started(self, job_id: int, lease: int, *, once: bool) -> None:
        """Notes that from now on the far side may have the job.

        Args:
            once: It must not go out again if nothing more is heard of it.

        Raises:
            UnavailableError: It could not be noted; the job must not go out.
        """
        record = b"[%d,%d,%d]\n" % (job_id, lease, once)
        self._write(record)
        self._open[job_id, lease] = record

    def finished(self, record: Finished) -> None:
        """Notes how the attempt ended, before anything else is done with it.

        Raises:
            UnavailableError: It could not be noted; the store has to be told all the same.
        """
        line = msgspec.json.encode(record) + b"\n"
        self._open[record.id, record.lease] = line
        self._write(line)

    def settled(self, records: list[Finished]) -> None:
        """Forgets attempts that the store has."""
        for record in records:
            self._open.pop((record.id, record.lease), None)
        if self._size_bytes > _COMPACT_BYTES and self._file >= 0:
            self._compact()

    def close(self, *, keep: bool = False) -> None:
        """Lets the file go, and the lock with it. Idempotent.

        Args:
            keep: Leave the file to whoever rescues what its process still holds.
        """
        if self._file < 0:
            return
        file, self._file = self._file, -1
        try:
            if not keep:
                remove_journal(self.path)
        finally:
            os.close(file)

    def _write(self, line: bytes) -> None:
        try:
            written = os.write(self._file, line)
            if written < len(line):  # a disk that is filling up takes a part
                os.ftruncate(self._file, self._size_bytes)
        except OSError as error:
            raise _not_written(self.path, error.strerror) from error
        if written < len(line):
            raise _not_written(self.path, os.strerror(errno.ENOSPC))
        self._size_bytes += written

    def _compact(self) -> None:
        """Replaces the file by one with what is still open: whole at every moment."""
        draft = _draft(self.path)
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
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            return
        os.close(old)


class _Noted(Finished, frozen=True, array_like=True, gc=False):
    """A result as it is read: `Raw` beside anything else in a union is not understood."""

    result: msgspec.Raw = msgspec.Raw(b"null")


Started = tuple[int, int, bool]


class JournalReading(msgspec.Struct, frozen=True):
    """What a journal says.

    Attributes:
        trusted: It is whole: written since the machine's last start, every line of it legible.
        started: The (id, lease, once) of jobs that went out and have no result.
        finished: The results.
    """

    trusted: bool
    started: list[Started]
    finished: list[Finished]


def read_journal(path: Path, boot: str) -> JournalReading:
    """Reads what a process noted; a file that is not there says nothing and is not trusted.

    A last line that was cut off is no harm: what it was to note had not been done.

    Raises:
        UnavailableError: The file is there and cannot be read.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return JournalReading(trusted=False, started=[], finished=[])
    except OSError as error:
        raise _not_read(path, error) from error
    version = next((number for number in _VERSIONS if lines[0] + b"\n" == _header(boot, number)), 0)
    trusted = boot != "" and version > 0
    decode = _decode_first if version == 1 else _decode
    started: dict[int, Started] = {}
    finished: dict[int, Finished] = {}
    for line in lines[1:-1]:
        try:
            record = decode(line)
        except (msgspec.MsgspecError, ValueError):  # nobody knows what it said
            trusted = False
            continue
        if isinstance(record, Finished):
            finished[record.id] = record
            started.pop(record.id, None)
        else:
            started[record[0]] = record
            finished.pop(record[0], None)
    return JournalReading(
        trusted=trusted, started=list(started.values()), finished=list(finished.values())
    )


def remove_journal(path: Path) -> None:
    """Removes a journal that nobody needs any more, and a draft that its process left."""
    _draft(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def holder_is_dead(path: Path) -> bool:
    """Whether nobody holds the journal: its process is gone, however it ended.

    Raises:
        UnavailableError: The file is there and cannot be opened.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError as error:
        raise _not_read(path, error) from error
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


def _decode(line: bytes) -> Finished | Started:
    if line.count(b",") == 2:
        job_id, lease, once = msgspec.json.decode(line, type=tuple[int, int, int])
        return job_id, lease, bool(once)
    noted = msgspec.json.decode(line, type=_Noted)
    known = msgspec.structs.asdict(noted)
    known["result"] = None if bytes(noted.result) == b"null" else noted.result
    return Finished(**known)


def _decode_first(line: bytes) -> Finished | Started:
    """A line of the first version: all jobs were `once`, and retries named a time of day."""
    if line.count(b",") == 1:
        return *msgspec.json.decode(line, type=tuple[int, int]), True
    job_id, lease, step, state, run_at_ms, reason, detail, at_ms = _FIRST.decode(line)
    delay_ms = None if run_at_ms is None else max(0, run_at_ms - at_ms)
    return Finished(job_id, lease, step, state, delay_ms, reason, detail, at_ms)


def _header(boot: str, version: int = _VERSIONS[-1]) -> bytes:
    return b'{"mailrace_journal":%d,"boot":"%s"}\n' % (version, boot.encode())


def _create_locked(path: Path) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        os.close(file)
        raise
    return file


def _draft(path: Path) -> Path:
    return path.with_suffix(".new")


def _not_written(path: Path, reason: str | None) -> UnavailableError:
    return UnavailableError(
        f"the journal {path} cannot be written: {reason}", hint="free some space; nothing is lost"
    )


def _not_read(path: Path, error: OSError) -> UnavailableError:
    return UnavailableError(
        f"the journal {path} cannot be read: {error.strerror}",
        hint="let the user who started the other processes run this one too",
    )
