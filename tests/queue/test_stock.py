"""Claimed jobs that are not begun: each comes out once, in the order in which it was let go."""

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mailrace.queue.jobs import ClaimedJob
from mailrace.queue.stock import Stock


def job(number: int, kind: str = "single", lease: int = 1) -> ClaimedJob:
    return ClaimedJob(
        number, lease, 1, False, kind, "default", "", 0, 0, None, None, None, 0, None,
        msgspec.Raw(b"null"),
    )  # fmt: skip


class StockMachine(RuleBasedStateMachine):
    """Against a plain list of what is held and one of what is ready."""

    def __init__(self) -> None:
        super().__init__()
        self.stock = Stock(["chunk", "other"])
        self.held: dict[int, ClaimedJob] = {}
        self.ready: list[int] = []
        self.number = 0

    @rule(kind=st.sampled_from(["single", "chunk", "other"]), at_once=st.booleans())
    def hold(self, kind: str, at_once: bool) -> None:
        self.number += 1
        self.held[self.number] = job(self.number, kind)
        self.stock.hold(self.held[self.number])
        if at_once:
            self.make_ready(self.number)

    @rule(data=st.data())
    def hold_again(self, data: st.DataObject) -> None:
        """It was given up and claimed once more: the same number under another lease."""
        if gone := sorted(set(range(1, self.number + 1)) - set(self.held)):
            number = data.draw(st.sampled_from(gone))
            self.held[number] = job(number, lease=2)
            self.stock.hold(self.held[number])

    @rule(number=st.integers(1, 30))
    def make_ready(self, number: int) -> None:
        if number in self.ready:
            return
        assert self.stock.make_ready(number) is (number in self.held)
        if number in self.held:
            self.ready.append(number)

    @rule()
    def take(self) -> None:
        expected = self.held.pop(self.ready.pop(0)) if self.ready else None
        assert self.stock.take() is expected

    @rule(kind=st.sampled_from(["chunk", "other"]), most=st.integers(0, 5))
    def take_more(self, kind: str, most: int) -> None:
        numbers = [number for number in self.ready if self.held[number].kind == kind][:most]
        self.ready = [number for number in self.ready if number not in numbers]
        assert self.stock.take_more(kind, most) == [self.held.pop(number) for number in numbers]

    @rule(number=st.integers(1, 30))
    def take_out(self, number: int) -> None:
        assert self.stock.take_out(number) is self.held.pop(number, None)
        self.ready = [one for one in self.ready if one != number]

    @rule()
    def give_up(self) -> None:
        assert self.stock.give_up() == list(self.held.values())
        self.held.clear()
        self.ready.clear()

    @invariant()
    def counts(self) -> None:
        assert len(self.stock) == len(self.held)
        assert self.stock.ready >= len(self.ready)
        assert bool(self.stock) is bool(self.held)


TestStock = StockMachine.TestCase


def test_a_job_that_was_given_up_and_claimed_again_goes_out_under_its_new_lease() -> None:
    stock = Stock()
    stock.hold(job(1, lease=1))
    stock.give_up()
    stock.hold(job(1, lease=2))
    assert stock.make_ready(1)
    taken = stock.take()
    assert taken is not None
    assert taken.lease == 2
    assert stock.take() is None


@pytest.mark.parametrize("in_chunk", [False, True])
def test_a_job_that_comes_back_is_not_begun_before_it_is_let_go_again(in_chunk: bool) -> None:
    """It may have to wait for a limit; what once let it go says nothing of the second time."""
    stock = Stock(["chunk"])
    stock.hold(job(1, "chunk"))
    stock.make_ready(1)
    assert stock.take_more("chunk", 1) if in_chunk else stock.take()
    stock.hold(job(1, "chunk"))
    assert stock.take() is None
    assert stock.take_more("chunk", 1) == []
    assert stock.make_ready(1)
    assert stock.take() is not None


def test_chunks_leave_nothing_behind_for_singles() -> None:
    stock = Stock(["chunk"])
    for number in range(10):
        stock.hold(job(number, "chunk"))
        stock.make_ready(number)
    first = stock.take()
    assert first is not None
    assert [one.id for one in stock.take_more("chunk", 100)] == list(range(1, 10))
    assert stock.take() is None
    assert not stock
