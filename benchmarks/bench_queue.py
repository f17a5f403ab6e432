"""Jobs a second through the durable queue, beside bare batched SQL and the queues for Python.

Everything is durable (fsync on) and history is kept. One process enqueues through the public bulk
call, then one worker process has a handler that does nothing do the jobs, journal included, until
the store has the last result.
"""

import argparse
import asyncio
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

import queue_limits
from peers_of_queue import PeerFigure, peer_figures
from queue_work import Place, both_rates, folder_on_disk, postgres_place, sqlite_place
from servers import Postgres, postgres
from stats import Figure, figure, table

# Bare SQL may be this many times as fast.
_LIMIT = 1 / 2.5
_MARKS = {"PostgreSQL": (80_000, 30_000), "SQLite": (150_000, 60_000)}

Rates = list[tuple[float, float]]
Contestant = Callable[[], tuple[float, float]]


def measure(
    *, runs: int = 5, jobs: int = 100_000, peers: bool = True, quick: bool = False
) -> list[Figure]:
    rates: dict[str, Rates] = {}
    # One after the other: a server tidies up after a run, on the same two cores.
    _run(rates, _on_sqlite(jobs), runs)
    with postgres() as server:
        _run(rates, _on_postgres(server, jobs), runs)
    figures = [
        each
        for store in ("PostgreSQL", "SQLite")
        for each in _figures(store, rates[store], rates[f"bare SQL, {store}"])
    ]
    if peers:
        figures += _beside(peer_figures(quick=quick), rates)
    return figures


def _run(rates: dict[str, Rates], contestants: dict[str, Contestant], runs: int) -> None:
    for _ in range(runs):
        for name, one in contestants.items():
            rates.setdefault(name, []).append(one())


def _on_sqlite(jobs: int) -> dict[str, Contestant]:
    def bare() -> tuple[float, float]:
        with folder_on_disk() as folder:
            return queue_limits.sqlite_rates(folder, jobs)

    return {"SQLite": lambda: _ours(sqlite_place(), jobs), "bare SQL, SQLite": bare}


def _on_postgres(server: Postgres, jobs: int) -> dict[str, Contestant]:
    def bare() -> tuple[float, float]:
        with server.database("bare") as dsn:
            return queue_limits.postgres_rates(dsn, jobs)

    return {
        "PostgreSQL": lambda: _ours(postgres_place(server), jobs),
        "bare SQL, PostgreSQL": bare,
    }


def _ours(place: AbstractContextManager[Place], jobs: int) -> tuple[float, float]:
    with place as found:
        return asyncio.run(both_rates(found, jobs))


def _figures(store: str, ours: Rates, bare: Rates) -> list[Figure]:
    found: list[Figure] = []
    for place, what in enumerate(("enqueue, bulk", "claim to completed, one process")):
        values, limit = [pair[place] for pair in ours], [pair[place] for pair in bare]
        name = f"{store}: {what}"
        found += [
            figure(name, values, "jobs/s", mark=_MARKS[store][place]),
            figure(f"{name}, beside", values, "jobs/s", beside=("bare SQL", limit), mark=_LIMIT),
        ]
    return found


def _beside(peers: Iterable[PeerFigure], rates: dict[str, Rates]) -> list[Figure]:
    """Our rate against each peer's: on its own store where we have that, else on PostgreSQL."""
    found: list[Figure] = []
    for peer in peers:
        ours = rates["SQLite" if peer.store == "sqlite" else "PostgreSQL"]
        name = f"{peer.peer} {peer.version} on {peer.store}"
        if not peer.completed_runs:
            found.append(Figure(name=f"{name}: {peer.reason}", value=0.0, unit="jobs/s"))
            continue
        worked = [pair[1] for pair in ours]
        found.append(
            figure(
                f"ours to {name}", worked, "jobs/s", beside=(peer.peer, peer.completed_runs), mark=1
            )
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--no-peers", dest="peers", action="store_false")
    parser.add_argument("--quick", action="store_true", help="fewer runs of the peers")
    print(table(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
