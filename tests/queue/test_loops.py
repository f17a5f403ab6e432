"""The loops of a process: each goes on, whatever its turns end with, and is watched."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from random import Random

import pytest

from mailrace.errors import UnavailableError
from mailrace.events import Events
from mailrace.queue.loops import _BACKOFF_MAX_S, _BACKOFF_S, LoopFailed, Loops, pause
from tests.support.clock import VirtualClock, settle


class Bench:
    """Loops in virtual time, and what they said."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.failed: list[LoopFailed] = []
        events = Events()
        events.follow(LoopFailed, self.failed.append)
        self.loops = Loops(self.clock, Random(1), events)
        self.turns_s: list[float] = []

    def start(self, name: str, *ends: float | Exception) -> None:
        """A loop whose turns end like this; the last one repeats."""
        rest = itertools.chain(ends, itertools.repeat(ends[-1]))

        async def turn() -> float:
            self.turns_s.append(self.clock.monotonic_s())
            end = next(rest)
            if isinstance(end, Exception):
                raise end
            return end

        self.loops.start(name, turn)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.loops.cancel()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_turn_says_when_the_next_one_is_due(bench: Bench) -> None:
    bench.start("loop", 1.0, 2.5, 60.0)
    await bench.clock.advance(30)
    assert bench.turns_s == [0.0, 1.0, 3.5]
    assert bench.failed == []


async def test_a_loop_that_fails_comes_back_with_growing_jittered_pauses(bench: Bench) -> None:
    error = UnavailableError("the store is out of reach")
    bench.start("loop", error)
    await bench.clock.advance(120)
    pauses_s = [later - sooner for sooner, later in itertools.pairwise(bench.turns_s)]
    assert len(pauses_s) > 8
    shares = [
        pause_s / min(_BACKOFF_MAX_S, _BACKOFF_S * 2**failures)
        for failures, pause_s in enumerate(pauses_s)
    ]
    assert all(0.5 - 1e-9 <= share <= 1 + 1e-9 for share in shares)
    assert len({round(share, 6) for share in shares}) > 3
    assert {failed.name for failed in bench.failed} == {"loop"}
    assert {failed.error for failed in bench.failed} == {error}
    told_s = [failed.again_in_s for failed in bench.failed]
    assert told_s[: len(pauses_s)] == pytest.approx(pauses_s)


async def test_a_good_turn_ends_the_backoff(bench: Bench) -> None:
    error = ValueError("odd")
    bench.start("loop", error, error, error, error, 0.001, error, 1000.0)
    await bench.clock.advance(60)
    assert len(bench.turns_s) == 7
    assert bench.turns_s[6] - bench.turns_s[5] <= 0.5


async def test_the_others_go_on_while_one_fails(bench: Bench) -> None:
    bench.start("broken", OSError("disk"))
    bench.start("good", 1.0)
    await bench.clock.advance(100)
    assert len(bench.turns_s) > 100
    assert bench.loops.ages_s()["good"] == pytest.approx(0)


async def test_a_loop_without_a_pause_lets_others_run(bench: Bench) -> None:
    bench.start("busy", 0.0)
    await settle()
    assert 10 < len(bench.turns_s) < 200


async def test_hurry_has_it_take_its_turn_now(bench: Bench) -> None:
    bench.start("loop", 1000.0)
    await bench.clock.advance(3)
    bench.loops.hurry("loop")
    await bench.clock.advance(1)
    assert bench.turns_s == [0.0, 3.0]
    await bench.clock.advance(998)
    assert bench.turns_s == [0.0, 3.0]  # the next one is counted from the last one
    await bench.clock.advance(2)
    assert len(bench.turns_s) == 3


async def test_hurry_in_the_middle_of_a_turn_is_not_lost(bench: Bench) -> None:
    turns, go_on = [0], asyncio.Event()

    async def turn() -> float:
        turns[0] += 1
        await go_on.wait()
        return 1000.0

    bench.loops.start("loop", turn)
    await settle()
    bench.loops.hurry("loop")
    go_on.set()
    await settle()
    assert turns == [2]


async def test_the_age_of_a_loop_is_that_of_its_last_useful_turn(bench: Bench) -> None:
    bench.start("good", 1.0)
    bench.start("broken", 0.5, OSError("disk"))
    stuck = asyncio.Event()

    async def stands_still() -> float:
        await stuck.wait()
        return 1.0

    bench.loops.start("stuck", stands_still)
    await bench.clock.advance(50.25)
    assert bench.loops.ages_s() == pytest.approx({"good": 0.25, "broken": 50.25, "stuck": 50.25})


async def test_a_loop_that_may_be_silent_has_no_age(bench: Bench) -> None:
    turns = [0]

    async def turn() -> float:
        turns[0] += 1
        return 1.0

    bench.loops.start("silent", turn, timed=False)
    await bench.clock.advance(5.5)
    assert turns == [6]
    assert bench.loops.ages_s() == {}


async def test_cancelled_they_are_gone_and_may_be_cancelled_again(bench: Bench) -> None:
    bench.start("resting", 10.0)
    bench.start("failing", ValueError("odd"))
    bench.start("busy", 0.0)
    await settle()
    await bench.loops.cancel()
    turns = len(bench.turns_s)
    await bench.loops.cancel()
    await bench.clock.advance(100)
    assert len(bench.turns_s) == turns
    assert bench.clock.sleepers == 0


async def test_a_pause_ends_early_and_leaves_no_timer() -> None:
    clock, ended = VirtualClock(), asyncio.Event()
    resting = asyncio.create_task(pause(100, ended, clock))
    await clock.advance(1)
    assert not resting.done()
    ended.set()
    await resting
    await settle()
    assert clock.sleepers == 0
    await pause(100, ended, clock)  # it is over already
