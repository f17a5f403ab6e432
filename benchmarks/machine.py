"""What a figure was measured on: without it the figure means nothing."""

import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import msgspec

_SYNCS = 50


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The machine of one run.

    Attributes:
        cores: Cores this process may use.
        memory_bytes: Main memory.
        loop: The event loop of the benchmarks in this process.
        file_system: Type of the file system of the temporary directory, where the stores are.
        fsync_ms: Median time of writing and syncing 4 KB there.
        load: Load average over the last minute, before the benchmarks.
    """

    cpu: str
    cores: int
    memory_bytes: int
    kernel: str
    python: str
    loop: str
    file_system: str
    fsync_ms: float
    load: float

    def lines(self) -> list[str]:
        """The description as text."""
        memory_gb = self.memory_bytes / 1e9
        return [
            f"{self.cpu}, {self.cores} cores, {memory_gb:.1f} GB, load {self.load:.2f}",
            f"{self.kernel}, Python {self.python} on {self.loop}",
            f"{tempfile.gettempdir()} on {self.file_system}, fsync {self.fsync_ms:.2f} ms",
        ]


def describe(loop: str) -> Machine:
    """Looks at this machine; takes as long as fifty syncs do."""
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        loop=loop,
        file_system=_file_system(Path(tempfile.gettempdir()).resolve()),
        fsync_ms=_fsync_ms(),
        load=os.getloadavg()[0],
    )


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"model name", "Model"}:
            return value.strip()
    return platform.machine()


def _file_system(path: Path) -> str:
    """The type of the mount that holds `path`: the one with the longest matching mount point."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    holding = [(len(m[1]), m[2]) for m in mounts if path.is_relative_to(m[1])]
    return max(holding)[1]


def _fsync_ms() -> float:
    times = []
    with tempfile.TemporaryFile() as file:
        for _ in range(_SYNCS):
            begin = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1000


if __name__ == "__main__":
    print("\n".join(describe("asyncio").lines()))
