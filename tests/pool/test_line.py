"""Who waits for room: in turn, and out of the line without a trace."""

from contextvars import Context
from typing import TYPE_CHECKING, Any, cast

from hypothesis import given
from hypothesis import strategies as st

from mailrace.pool.job import Job
from mailrace.pool.line import Ask, Line
from mailrace.pool.options import JobOptions, Kind, Terms

if TYPE_CHECKING:
    from mailrace.pool.engine import Engine

TERMS = Terms(JobOptions())


def somebody() -> Ask:
    job: Job[Any] = Job(cast("Engine", None), TERMS, Kind.LOOP, print, (), None, Context(), False)
    return Ask(job, lambda _: True)


def served(line: Line) -> list[Ask]:
    asks = []
    while (ask := line.head()) is not None:
        line.serve()
        asks.append(ask)
    return asks


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=400))
def test_everybody_who_stays_is_served_in_turn(comers: list[tuple[int, bool]]) -> None:
    line, asks = Line(), [(turn, somebody(), stays) for turn, stays in comers]
    for turn, ask, _ in asks:
        line.join(ask, turn)
    for _, ask, stays in asks:
        if not stays:
            line.leave(ask)
            line.leave(ask)
    staying = [(turn, ask) for turn, ask, stays in asks if stays]
    assert len(line) == len(staying)
    assert served(line) == [ask for _, ask in sorted(staying, key=lambda entry: entry[0])]
    assert len(line) == 0


def test_those_who_leave_do_not_pile_up() -> None:
    line, first = Line(), somebody()
    line.join(first, -1.0)
    for _ in range(10_000):
        ask = somebody()
        line.join(ask, 0.0)
        line.leave(ask)
    assert len(line._asks) < 200
    assert line.head() is first


def test_one_who_was_served_can_leave_without_harm() -> None:
    line, first, second = Line(), somebody(), somebody()
    line.join(first, 0.0)
    line.join(second, 0.0)
    assert line.head() is first
    line.serve()
    line.leave(first)
    assert len(line) == 1
    assert line.dissolve() == [second]
    line.leave(second)
    assert len(line) == 0
