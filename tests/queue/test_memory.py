"""A worker that stays above its memory limit leaves to be replaced, and loses nothing."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrace.errors import MisuseError, UnavailableError
from mailrace.events import Events
from mailrace.jobs import WorkerSettings
from mailrace.queue import JobState
from mailrace.queue.excess import Excess
from mailrace.queue.memory import MIB, MemoryUsedUp
from mailrace.queue.processes import ProcessState
from tests.queue.houses import add
from tests.queue.test_worker import Desk, names, rows
from tests.queue.world import World

LIMIT = 512 * MIB


class Machine:
    """What the process uses, and what a collection of garbage leaves of it."""

    def __init__(self) -> None:
        self.used_bytes = 100 * MIB
        self.garbage_bytes = 0
        self.collections = 0

    def collect(self) -> None:
        self.collections += 1
        self.used_bytes -= self.garbage_bytes
        self.garbage_bytes = 0


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr("mailrace.queue.memory.read_rss_bytes", lambda: machine.used_bytes)
    garbage = SimpleNamespace(collect=machine.collect)
    monkeypatch.setattr("mailrace.queue.memory.gc", garbage)
    return machine


async def test_it_lets_end_what_is_under_way_and_hands_back_the_rest(
    world: World, machine: Machine
) -> None:
    desk, events, told = Desk(), Events(), list[MemoryUsedUp]()
    events.follow(MemoryUsedUp, told.append)
    desk.open.clear()
    await add(world.store, *names(10))
    worker = world.worker(desk.handlers, events=events, concurrency=2, memory_max_bytes=LIMIT)
    async with world.running(worker):
        await world.until(lambda: len(desk.begun) == 2)
        machine.used_bytes = 600 * MIB
        above_s = world.clock.monotonic_s()
        await world.until(lambda: worker.state is ProcessState.DRAINING)
        assert 5 <= world.clock.monotonic_s() - above_s < 7
        assert worker.vitals().trouble == "uses 600.0 MiB and may use 512.0: to be replaced"
        desk.open.set()
    assert worker.restart
    assert told == [
        MemoryUsedUp(used_bytes=600 * MIB, limit_bytes=LIMIT, start_bytes=100 * MIB)
    ]  # once, although it went on using as much
    assert (desk.done, desk.cancelled) == (names(2), [])
    left = await rows(world, states=(JobState.AVAILABLE,))
    assert [(row.attempt, row.deaths) for row in left] == [(0, 0)] * 8
    await world.assert_nothing_is_left()


async def test_what_does_not_end_within_the_grace_goes_back(world: World, machine: Machine) -> None:
    desk = Desk()
    desk.open.clear()
    await add(world.store, "a")
    worker = world.worker(desk.handlers, grace_s=2.0, memory_max_bytes=LIMIT)
    async with world.running(worker):
        await world.until(lambda: desk.begun == ["a"])
        machine.used_bytes = LIMIT + 1
        await world.until(lambda: desk.cancelled == ["a"])
    assert worker.restart
    (left,) = await rows(world)
    assert (left.state, left.deaths) == (JobState.AVAILABLE, 0)


@pytest.mark.parametrize("used_bytes", [LIMIT, 100 * MIB])
async def test_who_is_not_above_its_limit_stays(
    world: World, machine: Machine, used_bytes: int
) -> None:
    desk = Desk()
    async with world.working(desk.handlers, memory_max_bytes=LIMIT) as worker:
        machine.used_bytes = used_bytes
        await world.clock.sleep_s(60)
        assert worker.state is ProcessState.WORKING
    assert not worker.restart


async def test_need_for_a_moment_is_no_reason(world: World, machine: Machine) -> None:
    desk = Desk()
    async with world.working(desk.handlers, memory_max_bytes=LIMIT) as worker:
        for _ in range(10):
            machine.used_bytes = 2 * LIMIT
            await world.clock.sleep_s(3)
            machine.used_bytes = LIMIT
            await world.clock.sleep_s(2)
        assert worker.state is ProcessState.WORKING
        assert machine.collections == 0


async def test_garbage_is_collected_first(world: World, machine: Machine) -> None:
    desk = Desk()
    async with world.working(desk.handlers, memory_max_bytes=LIMIT) as worker:
        machine.used_bytes, machine.garbage_bytes = 2 * LIMIT, LIMIT
        await world.clock.sleep_s(60)
        assert machine.collections == 1
        assert worker.state is ProcessState.WORKING
    assert not worker.restart


async def test_one_that_is_paused_stays_until_it_goes_on(world: World, machine: Machine) -> None:
    desk = Desk()
    async with world.working(desk.handlers, memory_max_bytes=LIMIT) as worker:
        await world.until(lambda: worker.state is ProcessState.WORKING)
        worker.pause()
        machine.used_bytes = 2 * LIMIT
        await world.clock.sleep_s(60)
        assert worker.state is ProcessState.PAUSED
        worker.resume()
        await world.until(lambda: worker.restart, within_s=10)


async def test_one_that_was_told_to_leave_asks_for_no_other(world: World, machine: Machine) -> None:
    desk = Desk()
    desk.open.clear()
    await add(world.store, "a")
    async with world.working(desk.handlers, grace_s=30, memory_max_bytes=LIMIT) as worker:
        await world.until(lambda: desk.begun == ["a"])
        machine.used_bytes = 2 * LIMIT
        worker.drain()
        await world.until(lambda: desk.cancelled == ["a"])
    assert not worker.restart


async def test_where_the_system_does_not_tell_only_a_limit_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent() -> int:
        raise UnavailableError("nothing is told", hint="Linux only")

    monkeypatch.setattr("mailrace.queue.memory.read_rss_bytes", silent)
    world.worker(Desk().handlers)
    with pytest.raises(UnavailableError, match="Linux only"):
        world.worker(Desk().handlers, memory_max_bytes=LIMIT)


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "512M"])
def test_a_limit_that_is_none_is_refused(limit: int) -> None:
    with pytest.raises(MisuseError, match=r"memory_max_bytes is .*; give a whole number"):
        WorkerSettings(memory_max_bytes=limit)


above = st.integers(min_value=1, max_value=50).map(lambda more: 100 + more)
below = st.integers(min_value=0, max_value=100)


@given(
    samples=st.lists(st.tuples(st.floats(min_value=0, max_value=20), above | below)),
    hold_s=st.floats(min_value=0, max_value=60),
)
def test_it_is_an_excess_when_all_samples_of_a_span_are(
    samples: list[tuple[float, int]], hold_s: float
) -> None:
    excess, now_s = Excess(100, hold_s=hold_s), 0.0
    since_s: float | None = None
    for pause_s, used_bytes in samples:
        now_s += pause_s
        if used_bytes <= 100:
            since_s = None
        elif since_s is None:
            since_s = now_s
        above_s = -1.0 if since_s is None else now_s - since_s
        assert excess.seen(used_bytes, now_s) == (above_s >= hold_s)


def test_a_time_in_which_nobody_looked_says_nothing() -> None:
    excess = Excess(100, hold_s=5.0)
    assert not excess.seen(101, 0.0)
    excess.forget()
    assert not excess.seen(101, 3600.0)
    assert excess.seen(101, 3605.0)
