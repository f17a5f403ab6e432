"""How much memory the process and its container use: what Linux says in a few small files."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import PAGESIZE
from pathlib import Path
from typing import Self

from mailrace.errors import UnavailableError

_ROOT = Path("/")
_READ_BYTES = 16_384
# cgroup v1 writes "no limit" as the greatest number of whole pages, which no machine has.
_UNLIMITED_BYTES = 1 << 60


def read_rss_bytes(statm: str = "/proc/self/statm") -> int:
    """The resident memory of this process, in bytes, a few pages of each thread out of date.

    Outside Linux there is no answer: what other systems tell without a library of its own is the
    peak of the process, which never falls again.

    Args:
        statm: Where the kernel tells it.

    Raises:
        UnavailableError: The system does not say.
    """
    try:
        return int(_read(statm).split()[1]) * PAGESIZE
    except (OSError, ValueError, IndexError) as error:
        raise UnavailableError(
            f"{statm} does not tell the memory of the process",
            hint="limits on memory work on Linux only; set none elsewhere",
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroup:
    """The control group with the tightest memory limit among those the process is in.

    Attributes:
        limit_bytes: What all of the group's processes may use together, as of when it was found.
        usage_path: The file with what they use, page cache included.
        statistics_path: The file that splits it up.
        reclaimable: What that file calls page cache that was not used lately.
    """

    limit_bytes: int
    usage_path: str
    statistics_path: str
    reclaimable: bytes

    @classmethod
    def find(cls, root: Path = _ROOT) -> Self | None:
        """Looks through the process's group and those around it, in version 2 and version 1.

        Args:
            root: The folder in which `proc` and `sys` are.

        Returns:
            `None` where no group has a limit, and outside Linux.
        """
        try:
            lines = (
                _read(str(root / "proc/self/cgroup")).decode(errors="surrogateescape").splitlines()
            )
        except OSError:
            return None
        groups = (group for line in lines for group in cls._around(line, root))
        return min(groups, key=lambda group: group.limit_bytes, default=None)

    @classmethod
    def _around(cls, line: str, root: Path) -> Iterator[Self]:
        """The limited groups of one hierarchy: from the process's own to the outermost in sight."""
        number, _, named = line.partition(":")
        controllers, _, path = named.partition(":")
        if number == "0" and not controllers:
            top, prefix = root / "sys/fs/cgroup", b""
            limit, usage = "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            top, prefix = root / "sys/fs/cgroup/memory", b"total_"
            limit, usage = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            return
        for folder in _folders(top, path):
            limit_bytes = _limit_bytes(folder / limit)
            if limit_bytes is not None:
                yield cls(
                    limit_bytes=limit_bytes,
                    usage_path=str(folder / usage),
                    statistics_path=str(folder / "memory.stat"),
                    reclaimable=b"\n" + prefix + b"inactive_file ",
                )

    def used_bytes(self) -> int:
        """What the group uses, less the page cache that the kernel takes back before it kills.

        Writing files fills the page cache up to the limit in the best of health; what is left
        without it is what Kubernetes calls the working set.

        Raises:
            UnavailableError: The group's files cannot be read any more.
        """
        try:
            used_bytes = int(_read(self.usage_path))
            _, _, rest = _read(self.statistics_path).partition(self.reclaimable)
            return max(0, used_bytes - int(rest.split(b"\n", 1)[0] or 0))
        except (OSError, ValueError) as error:
            raise UnavailableError(
                f"{self.usage_path} does not tell the memory of the container",
                hint="look the group up again",
            ) from error


def cgroup_limit_bytes(root: Path = _ROOT) -> int | None:
    """The container's memory limit; `None` for no limit."""
    group = Cgroup.find(root)
    return group.limit_bytes if group else None


def _folders(top: Path, path: str) -> Iterator[Path]:
    """A group's folder and those around it; inside a container often the outermost only."""
    folder = top / path.lstrip("/")
    if ".." not in folder.parts:
        while folder != top:
            yield folder
            folder = folder.parent
    yield top


def _limit_bytes(path: Path) -> int | None:
    try:
        limit_bytes = int(_read(str(path)))
    except (OSError, ValueError):  # no such file, or "max"
        return None
    return limit_bytes if limit_bytes < _UNLIMITED_BYTES else None


def _read(path: str) -> bytes:
    # Half the cost of open() and read(): this runs on the event loop.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, _READ_BYTES)
    finally:
        os.close(descriptor)
