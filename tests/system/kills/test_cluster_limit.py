"""One limit over several processes, one of which is killed and replaced: never exceeded."""

import os
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.system.kills.books import Books

EVERYTHING = bool(int(os.environ.get("MAILRACE_TEST_KILLS", "0")))
PROCESSES = 3


@dataclass(frozen=True, kw_only=True)
class Case:
    """A limit, also as (so many, in so many seconds), and jobs for about four seconds."""

    rates: str
    windows: tuple[tuple[int, float], ...]
    jobs: int


ONE = Case(rates="100/s", windows=((100, 1.0),), jobs=300)
TWO = Case(rates="50/s, 60/2s", windows=((50, 1.0), (60, 2.0)), jobs=75)


def check_limit(books: Books, stack: ExitStack, case: Case) -> None:
    books.limit("relay", case.rates)
    books.enqueue(["quick"] * case.jobs)
    processes = [books.process(stack) for _ in range(PROCESSES)]
    for process in processes:
        process.until("finished")
    processes[0].kill()
    processes[0] = books.process(stack)
    books.until_final()
    for process in processes:
        process.until_ever("working")
        process.drain()
    begun_s = sorted(effect.at_ns / 1e9 for effect in books.effects() if effect.what == "begin")
    assert len(begun_s) >= case.jobs
    assert len({effect.pid for effect in books.effects()}) >= PROCESSES
    for most, window_s in case.windows:
        spans = [after - first for first, after in zip(begun_s, begun_s[most:], strict=False)]
        assert min(spans) >= window_s
    # Slots that nobody could use in time are lost, but most are used.
    rate = min(most / window_s for most, window_s in case.windows)
    assert len(begun_s) / (begun_s[-1] - begun_s[0]) > rate / 3
    books.check()


@pytest.mark.parametrize("case", [ONE, TWO] if EVERYTHING else [ONE])
def test_a_limit_holds_in_every_window_over_all_processes_on_sqlite(
    sqlite_books: Books, stack: ExitStack, case: Case
) -> None:
    check_limit(sqlite_books, stack, case)


@pytest.mark.parametrize("case", [ONE, TWO] if EVERYTHING else [TWO])
def test_a_limit_holds_in_every_window_over_all_processes_on_postgres(
    postgres_books: Books, stack: ExitStack, case: Case
) -> None:
    check_limit(postgres_books, stack, case)
