"""Limits over several workers on one store: in every window the starts stay below the limit."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from mailrace.queue import JobState
from mailrace.queue.answers import SlowDown
from mailrace.queue.kinds import Handlers, JobInfo
from mailrace.queue.limits import LimitRow
from mailrace.queue.worker import Worker
from tests.pool.test_rate import most_in_a_window
from tests.queue.houses import add, numbered, queue_counts
from tests.queue.world import FlakyStore, World

# Virtual time outruns the thread that renews.
LEASE_S = 1e6


class Starts:
    """A handler that notes when it began, and takes a moment."""

    def __init__(self, world: World, *, takes_s: float = 0.0) -> None:
        self.world, self.takes_s = world, takes_s
        self.starts: list[tuple[float, str, int]] = []
        self.handlers = Handlers()
        self.handlers.add("kind", self)

    async def __call__(self, payload: Any, info: JobInfo) -> None:
        self.starts.append((self.world.clock.monotonic_s(), info.tenant, info.attempt))
        await self.world.clock.sleep_s(self.takes_s)

    def times_s(self, tenant: str | None = None) -> list[float]:
        return [at_s for at_s, whose, _ in self.starts if tenant in {None, whose}]

    @property
    def attempts(self) -> set[int]:
        return {attempt for _, _, attempt in self.starts}


def workers(world: World, handlers: Handlers, number: int, **settings: Any) -> list[Worker]:
    return [
        world.worker(
            handlers,
            store=world.house.open(),
            **{"upkeep": False, "lease_s": LEASE_S, **settings},
        )
        for _ in range(number)
    ]


async def limited(world: World, rates: str, **more: Any) -> None:
    queue = world.queue()
    await queue.set_limit("limit", rates, **more)
    await queue.configure("default", limits=("limit",))


@pytest.mark.parametrize(
    ("rates", "margin", "jobs", "span_s"),
    [
        ("100/s", 0.0, 500, (4.8, 6.0)),
        ("100/s", 0.1, 300, (3.2, 4.2)),
        ("5/s, 20/min", 0.0, 45, (120.0, 145.0)),
    ],
)
async def test_the_limit_holds_in_every_window_and_is_used(
    world: World, rates: str, margin: float, jobs: int, span_s: tuple[float, float]
) -> None:
    starts = Starts(world, takes_s=0.02)
    await limited(world, rates, margin=margin)
    await add(world.store, *numbered("j", jobs))
    async with world.running(*workers(world, starts.handlers, 3)):
        await world.until_counts({JobState.COMPLETED: jobs})
    times_s = starts.times_s()
    for rate in rates.split(","):
        count, _, unit = rate.strip().partition("/")
        window_s = {"s": 1.0, "min": 60.0}[unit]
        assert most_in_a_window(times_s, window_s) <= int(count) * (1 - margin)
    assert span_s[0] <= times_s[-1] - times_s[0] <= span_s[1]
    assert starts.attempts == {1}
    assert len(times_s) == jobs


async def test_workers_that_are_all_busy_use_no_slot_too_late(world: World) -> None:
    """Jobs stand in line for a worker when their slots have come; some wait long."""
    starts = Starts(world, takes_s=0.7)
    await limited(world, "20/s")
    await add(world.store, *numbered("j", 60))
    async with world.running(*workers(world, starts.handlers, 2, concurrency=4)):
        await world.until_counts({JobState.COMPLETED: 60})
    assert most_in_a_window(starts.times_s(), 1.0) <= 20


@pytest.mark.parametrize("takes_s", [0.0, 0.3])
async def test_chunks_count_job_by_job(world: World, takes_s: float) -> None:
    """Also what has gathered while all workers were busy for long."""
    handlers, times_s = Handlers(), list[float]()

    @handlers.register("kind", chunk=10)
    async def handler(payloads: list[Any]) -> list[None]:
        times_s.extend([world.clock.monotonic_s()] * len(payloads))
        await world.clock.sleep_s(takes_s if world.clock.monotonic_s() > 2 else 3)
        return [None] * len(payloads)

    await limited(world, "50/s")
    await add(world.store, *numbered("j", 150))
    async with world.running(*workers(world, handlers, 2, concurrency=2)):
        await world.until_counts({JobState.COMPLETED: 150})
    assert len(times_s) == 150
    assert most_in_a_window(times_s, 1.0) <= 50


async def test_a_note_of_the_begin_that_takes_its_time_breaks_no_limit(world: World) -> None:
    """On a store over a network, for jobs that are done at most once."""

    class FarStore(FlakyStore):
        marks_begun = True
        noted = 0

        async def begin(self, process_id: int, jobs: Sequence[tuple[int, int]]) -> list[int]:
            self.noted += 1
            await self._clock.sleep_s(0.05 if self.noted % 3 else 0.4)
            return []

    handlers, times_s = Handlers(), list[float]()

    @handlers.register("kind", at_most_once=True)
    async def handler(payload: Any) -> None:
        times_s.append(world.clock.monotonic_s())

    await limited(world, "50/s")
    await add(world.store, *numbered("j", 200))
    store = FarStore.open(world.house.path, world.clock)
    async with world.running(world.worker(handlers, store=store, concurrency=20, lease_s=LEASE_S)):
        await world.until_counts({JobState.COMPLETED: 200})
    await store.close()
    assert most_in_a_window(times_s, 1.0) <= 50


async def test_one_limited_tenant_keeps_no_other_waiting(world: World) -> None:
    starts = Starts(world)
    queue = world.queue()
    await queue.set_limit("of-slow", "2/s")
    await queue.set_limit("of-quick", "200/s")
    await queue.configure("default", limits=("of-{tenant}",))
    await add(world.store, *numbered("s", 500), tenant="slow")
    async with world.running(*workers(world, starts.handlers, 2, concurrency=2, buffer=20)):
        await world.clock.sleep_s(3)
        await add(world.store, *numbered("q", 100), tenant="quick")
        came_s = world.clock.monotonic_s()
        await world.until(lambda: len(starts.times_s("quick")) == 100, 5)
        assert world.clock.monotonic_s() - came_s < 2
    assert most_in_a_window(starts.times_s("slow"), 1.0) <= 2
    assert most_in_a_window(starts.times_s("quick"), 1.0) <= 200


async def test_a_limit_that_is_edited_while_they_run_holds_from_then_on(world: World) -> None:
    starts = Starts(world)
    await limited(world, "50/s")
    await add(world.store, *numbered("j", 1000))
    async with world.running(*workers(world, starts.handlers, 2)):
        await world.clock.sleep_s(3)
        assert len(starts.starts) > 100
        await world.queue().set_limit("limit", "5/s")
        changed_s = world.clock.monotonic_s()
        await world.clock.sleep_s(10)
        later_s = [at_s for at_s in starts.times_s() if at_s > changed_s + 0.3]
        assert most_in_a_window(later_s, 1.0) <= 5
        assert len(later_s) >= 40
        await world.queue().configure("default", limits=())
        await world.until_counts({JobState.COMPLETED: 1000})
        assert world.clock.monotonic_s() < 20
    assert starts.attempts == {1}


async def test_a_queue_that_gets_a_limit_while_they_run_holds_it_soon(world: World) -> None:
    starts = Starts(world, takes_s=0.05)
    await add(world.store, *numbered("j", 2000))
    await world.queue().set_limit("limit", "10/s")
    async with world.running(*workers(world, starts.handlers, 2, concurrency=2, buffer=20)):
        await world.clock.sleep_s(2)
        await world.queue().configure("default", limits=("limit",))
        changed_s = world.clock.monotonic_s()
        await world.clock.sleep_s(6)
        # The rules are read once a second; what was claimed by then goes on.
        later_s = [at_s for at_s in starts.times_s() if at_s > changed_s + 2]
        assert most_in_a_window(later_s, 1.0) <= 10
        assert len(later_s) >= 30


async def test_slow_down_halves_an_adaptive_limit_and_it_comes_back(world: World) -> None:
    handlers, times_s, busy = Handlers(), list[float](), [False]

    @handlers.register("kind")
    async def handler(payload: Any) -> SlowDown | None:
        times_s.append(world.clock.monotonic_s())
        if busy[0]:
            busy[0] = False
            return SlowDown(1)
        return None

    async def pace() -> float:
        (limit,) = await world.store.limits()
        return limit.pace

    await limited(world, "20/s", adaptive=True)
    await add(world.store, *numbered("j", 2000))
    async with world.running(*workers(world, handlers, 2, upkeep=True)):
        await world.clock.sleep_s(3)
        assert await pace() == 1.0
        busy[0] = True
        await world.clock.sleep_s(0.5)
        assert await pace() == 0.5
        slowed_s = world.clock.monotonic_s()
        await world.clock.sleep_s(3)
        assert most_in_a_window([at_s for at_s in times_s if at_s > slowed_s], 1.0) <= 11
        await world.clock.sleep_s(12)
        assert 0.55 <= await pace() <= 0.75
        recent_s = [at_s for at_s in times_s if at_s > world.clock.monotonic_s() - 4]
        assert len(recent_s) / 4 > 10.5
    assert most_in_a_window(times_s, 1.0) <= 20
    rows = await world.store.queue_figures()
    assert rows[0].counts[JobState.FAILED] == 0


async def test_a_limit_that_is_not_adaptive_keeps_its_pace(world: World) -> None:
    handlers = Handlers()

    @handlers.register("kind")
    async def handler(payload: Any) -> SlowDown:
        return SlowDown(60)

    await limited(world, "40/s")
    await add(world.store, *numbered("j", 20))
    async with world.running(*workers(world, handlers, 1)):
        await world.clock.sleep_s(2)
    assert [limit.pace for limit in await world.store.limits()] == [1.0]


@pytest.mark.parametrize("rates", ["1/min", "1/h"])
async def test_jobs_that_wait_for_a_limit_burn_no_attempt_and_are_handed_back(
    world: World, rates: str
) -> None:
    starts = Starts(world)
    await limited(world, rates)
    await add(world.store, *numbered("j", 30), attempts=1)
    for _ in range(3):
        worker = world.worker(starts.handlers, store=world.house.open(), grace_s=5, lease_s=LEASE_S)
        running = asyncio.create_task(worker.run())
        await world.clock.sleep_s(10)
        drained_s = world.clock.monotonic_s()
        worker.drain()
        await asyncio.wait_for(running, 20)
        assert world.clock.monotonic_s() - drained_s < 1
    assert len(starts.starts) == 1
    assert await queue_counts(world.store) == {JobState.COMPLETED: 1, JobState.AVAILABLE: 29}
    assert await world.store.processes() == []


async def test_no_more_is_claimed_than_the_limit_will_let_go_soon(world: World) -> None:
    """Another process may be free to do the rest, or know a tenant that is not limited."""
    starts = Starts(world)
    await limited(world, "100/s")
    await add(world.store, *numbered("j", 1000))
    async with world.running(*workers(world, starts.handlers, 1, concurrency=20)) as worker:
        for _ in range(40):
            await world.clock.sleep_s(0.05)
            vitals = worker.vitals()
            assert vitals.held + vitals.in_hand <= 35


async def test_a_store_that_fails_while_slots_are_taken_is_no_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = Starts(world)
    await limited(world, "50/s")
    await add(world.store, *numbered("j", 300))
    take, failures = world.store.take_slots, [0]

    async def flaky(name: str, default: LimitRow | None, *, span_s: float) -> Any:
        failures[0] += 1
        if failures[0] % 3 == 0:
            raise OSError("odd")
        return await take(name, default, span_s=span_s)

    monkeypatch.setattr(world.store, "take_slots", flaky)
    async with world.running(world.worker(starts.handlers, lease_s=LEASE_S)):
        await world.until_counts({JobState.COMPLETED: 300})
    assert most_in_a_window(starts.times_s(), 1.0) <= 50
    assert starts.attempts == {1}
    await world.assert_nothing_is_left()
