"""What the durable queue is measured beside: the queues for Python, one worker process each.

All do the same: some jobs that do nothing, with a small JSON payload, are enqueued and then worked
off by one worker process, with the settings that were best for it here. `queue_peers` has a script
for each, with its settings and why; their dependencies exclude each other, so `uv` gives each an
environment of its own, with pinned versions. What cannot be installed or does not finish gives a
figure with the reason and no rates.

PostgreSQL is set to lose nothing. Valkey syncs its append-only file once a second, which is the
most that is usual for queues there.
"""

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from servers import Postgres, postgres, valkey

_HERE = Path(__file__).resolve().parent
_INSTALL_LIMIT_S = 300.0
# A script ends itself after 60 s; this is for one that does not.
_RUN_LIMIT_S = 90.0
_RUNS = 3
_QUICK_PART = 4


class Contestant(msgspec.Struct, frozen=True, kw_only=True):
    """One peer on one store.

    Attributes:
        peer: Its name and that of its script.
        store: `postgresql`, `valkey` or `sqlite`.
        jobs: So many that one worker is busy for some three to ten seconds.
        one_core: Whether it shares a core with its server. A peer that waits for a reply at every
            step, with nothing else to do, is up to 2.4 times as fast so on a virtual machine, where
            to wake an idle core takes longer than the reply; the others are faster on two.
    """

    peer: str
    store: str
    jobs: int
    one_core: bool = False

    @property
    def script(self) -> Path:
        return _HERE / "queue_peers" / f"{self.peer}.py"


CONTESTANTS = (
    Contestant(peer="pgqueuer", store="postgresql", jobs=100_000),
    Contestant(peer="procrastinate", store="postgresql", jobs=3_000),
    Contestant(peer="saq", store="postgresql", jobs=4_000),
    Contestant(peer="saq", store="valkey", jobs=12_000),
    Contestant(peer="arq", store="valkey", jobs=12_000),
    Contestant(peer="streaq", store="valkey", jobs=5_000),
    Contestant(peer="taskiq", store="valkey", jobs=20_000),
    Contestant(peer="celery", store="valkey", jobs=8_000),
    Contestant(peer="dramatiq", store="valkey", jobs=30_000, one_core=True),
    Contestant(peer="huey", store="valkey", jobs=40_000, one_core=True),
    Contestant(peer="huey", store="sqlite", jobs=10_000),
)


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """What a script prints."""

    peer: str
    version: str
    store: str
    enqueued_per_s: float
    completed_per_s: float
    note: str


class PeerFigure(msgspec.Struct, frozen=True, kw_only=True):
    """The rates of one peer on one store.

    Attributes:
        version: Of the peer; empty if no run ended well.
        jobs: How many were enqueued and worked off in a run.
        enqueued_per_s: Jobs a second through its bulk call, the median of the runs; `None` if no
            run ended well.
        completed_per_s: Jobs a second from start of the worker to the last job, likewise.
        enqueued_runs: The values of the runs, in the order they were taken.
        completed_runs: Likewise.
        note: What it makes durable and what it keeps of a finished job.
        reason: Why runs are missing; empty if none is.
    """

    peer: str
    version: str
    store: str
    jobs: int
    enqueued_per_s: float | None
    completed_per_s: float | None
    enqueued_runs: tuple[float, ...] = ()
    completed_runs: tuple[float, ...] = ()
    note: str = ""
    reason: str = ""


class _FailedError(Exception):
    """A script could not be installed, or did not end well; the message is one line."""


def peer_figures(names: Iterable[str] | None = None, *, quick: bool = False) -> list[PeerFigure]:
    """Runs the peers in turn, three times over, or once and with fewer jobs if `quick`.

    Args:
        names: Which peers; all of them by default.
        quick: Whether rough figures will do.

    Raises:
        ValueError: A name is not that of a peer.
    """
    chosen = [_sized(each, quick=quick) for each in _chosen(names)]
    lines: dict[Contestant, list[Line]] = {each: [] for each in chosen}
    reasons = dict.fromkeys(chosen, "")
    with postgres() as server:
        for each in chosen:
            reasons[each] = _installed(each)
        for _ in range(1 if quick else _RUNS):
            for each in chosen:
                if reasons[each]:
                    continue
                print(f"measuring {each.peer} on {each.store} ...", file=sys.stderr)
                try:
                    lines[each].append(_run(each, server))
                except _FailedError as failed:
                    reasons[each] = str(failed)
    return [_figure(each, lines[each], reasons[each]) for each in chosen]


def table(figures: Iterable[PeerFigure]) -> str:
    """The figures as plain text in columns, with what each keeps, or why it has no rates."""
    rows = [("peer", "version", "store", "jobs", "enqueued/s", "completed/s", "spread", "")]
    rows += [_cells(each) for each in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    right = {3, 4, 5, 6}
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one run of fewer jobs")
    parser.add_argument("--only", metavar="PEER,PEER", help="not all of them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    arguments = parser.parse_args()
    names = arguments.only.split(",") if arguments.only else None
    try:
        figures = peer_figures(names, quick=arguments.quick)
    except ValueError as error:
        parser.error(str(error))
    print(table(figures))
    if arguments.json is not None:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(figures)) + b"\n")
    return 0


def _chosen(names: Iterable[str] | None) -> list[Contestant]:
    known = {each.peer for each in CONTESTANTS}
    wanted = known if names is None else set(names)
    if unknown := wanted - known:
        raise ValueError(f"unknown peer {', '.join(sorted(unknown))}; there are {sorted(known)}")
    return [each for each in CONTESTANTS if each.peer in wanted]


def _sized(one: Contestant, *, quick: bool) -> Contestant:
    return msgspec.structs.replace(one, jobs=one.jobs // _QUICK_PART) if quick else one


def _installed(one: Contestant) -> str:
    """Makes the environment of a script, and says why it could not."""
    try:
        _uv("sync", "--script", str(one.script), limit_s=_INSTALL_LIMIT_S)
    except _FailedError as failed:
        return f"cannot be installed here: {failed}"
    return ""


def _run(one: Contestant, server: Postgres) -> Line:
    """Runs a script once, on a store made for this run."""
    words = ["run", "--no-project", "--script", str(one.script), "--jobs", str(one.jobs)]
    with _cores(one), _store(one.store, server) as place:
        output = _uv(*words, *place, limit_s=_RUN_LIMIT_S)
    try:
        return msgspec.json.decode(output, type=Line)
    except msgspec.DecodeError as error:
        raise _FailedError(f"printed something else than one line of JSON: {error}") from error


@contextmanager
def _cores(one: Contestant) -> Iterator[None]:
    """Sets where the processes that are started meanwhile may run."""
    before = os.sched_getaffinity(0)
    if one.one_core:
        os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _store(store: str, server: Postgres) -> Iterator[tuple[str, str]]:
    """An empty store, as an argument of a script."""
    match store:
        case "postgresql":
            with server.database("peer") as address:
                yield "--postgres", address
        case "valkey":
            with valkey() as address:
                yield "--redis", address
        case _:
            with tempfile.TemporaryDirectory() as name:
                yield "--sqlite", str(Path(name) / "peer.db")


def _uv(command: str, *words: str, limit_s: float) -> bytes:
    """Runs uv and gives what was printed; it and all it started end within the limit."""
    environment = {**os.environ, "PYTHONPATH": str(_HERE), "PYTHONSAFEPATH": "1"}
    environment.pop("VIRTUAL_ENV", None)
    # A session of its own, so that the processes below uv can be ended together.
    with subprocess.Popen(
        [_uv_program(), command, "--quiet", "--python", sys.executable, *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=limit_s)
        except BaseException as error:
            # Not yet waited for, so that the number is still that of our session.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise _FailedError(f"not done after {limit_s:.0f} s") from None
            raise
    if process.returncode in {-signal.SIGALRM, 128 + signal.SIGALRM}:
        raise _FailedError("its script ran out of time")
    if process.returncode != 0:
        raise _FailedError(_last_line(errors) or f"ended with {process.returncode}")
    return output


def _uv_program() -> str:
    places = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    found = shutil.which("uv", path=places)
    if found is None:
        raise _FailedError("uv is not installed; it is in the dependency group dev")
    return found


def _last_line(errors: bytes) -> str:
    lines = errors.decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


def _figure(one: Contestant, lines: list[Line], reason: str) -> PeerFigure:
    enqueued = tuple(line.enqueued_per_s for line in lines)
    completed = tuple(line.completed_per_s for line in lines)
    return PeerFigure(
        peer=one.peer,
        version=lines[0].version if lines else "",
        store=one.store,
        jobs=one.jobs,
        enqueued_per_s=statistics.median(enqueued) if enqueued else None,
        completed_per_s=statistics.median(completed) if completed else None,
        enqueued_runs=enqueued,
        completed_runs=completed,
        note=lines[0].note if lines else "",
        reason=reason,
    )


def _cells(one: PeerFigure) -> tuple[str, str, str, str, str, str, str, str]:
    runs = one.completed_runs
    spread = f"{(max(runs) - min(runs)) / statistics.median(runs):.0%}" if len(runs) > 1 else ""
    remark = f"{one.note} ({one.reason})" if one.note and one.reason else one.note or one.reason
    enqueued, completed = _rate(one.enqueued_per_s), _rate(one.completed_per_s)
    jobs = f"{one.jobs:,}"
    return one.peer, one.version, one.store, jobs, enqueued, completed, spread, remark


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


if __name__ == "__main__":
    sys.exit(main())
