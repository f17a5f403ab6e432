"""What a pool does as the process's memory runs out, and how it comes back by itself."""

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from mailrace.pool import (
    Job,
    JobDroppedError,
    JobState,
    MemorySettings,
    Pool,
    PoolFullError,
    Reason,
    Status,
)
from tests.pool.plugged import Plugged, plugged
from tests.support.clock import VirtualClock, settle

LIMIT = MemorySettings(process_max_bytes=1000, share_of_cgroup=None)
LOOK_S = 0.5  # how often a pool looks


@dataclass
class Process:
    """The process as the pool sees it."""

    used_bytes: int = 0
    looks: int = 0

    def read(self) -> int:
        self.looks += 1
        return self.used_bytes


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    fake = Process()
    monkeypatch.setattr("mailrace.pool.watch.read_rss_bytes", fake.read)
    return fake


async def uses(bench: Plugged, process: Process, used_bytes: int) -> None:
    """Lets the process use so much, and the pool see it."""
    process.used_bytes = used_bytes
    await bench.clock.advance(LOOK_S)


def count(taken: list[int]) -> Iterator[int]:
    for number in itertools.count():
        taken.append(number)
        yield number


@pytest.mark.parametrize("way", ["submit_many", "map"])
async def test_sources_stop_first_while_submits_by_hand_are_still_taken(
    process: Process, way: str
) -> None:
    async with plugged(memory=LIMIT, queue_size=50) as bench:
        taken: list[int] = []
        source = getattr(bench.pool, way)(bench.note, count(taken))
        await uses(bench, process, 800)
        reading = asyncio.ensure_future(anext(source))
        await settle()
        assert taken == [0], "the one item it has in its hand"
        assert bench.pool.ledger().accepted == 1
        bench.pool.submit_nowait(bench.note, "by hand")
        await uses(bench, process, 700)
        await bench.unplug()
        await reading
        assert len(taken) >= 1
        assert bench.pool.ledger().accepted > 2
        await source.aclose()


async def test_an_async_source_is_not_asked_for_more_either(process: Process) -> None:
    async with plugged(memory=LIMIT) as bench:
        taken: list[int] = []

        async def source() -> Any:
            for number in count(taken):
                yield number

        many = bench.pool.submit_many(bench.note, source())
        await anext(many)
        await uses(bench, process, 850)
        reading = asyncio.ensure_future(anext(many))
        await bench.clock.advance(10)
        assert taken == [0, 1]
        assert not reading.done()
        await uses(bench, process, 0)
        assert reading.done()
        await many.aclose()


async def test_then_submits_wait_or_are_refused_and_go_on_when_memory_is_there(
    process: Process,
) -> None:
    async with plugged(memory=LIMIT) as bench:
        await uses(bench, process, 900)
        waiting = asyncio.ensure_future(bench.pool.submit(bench.note, "waits"))
        impatient = asyncio.ensure_future(
            bench.pool.options(wait=3).submit(bench.note, "waits 3 seconds")
        )
        with pytest.raises(PoolFullError, match="memory runs short"):
            bench.pool.submit_nowait(bench.note, "refused")
        await bench.clock.advance(3)
        with pytest.raises(PoolFullError, match="no room within"):
            await impatient
        assert not waiting.done()
        assert bench.pool.ledger().accepted == 1
        await uses(bench, process, 840)  # below the rung, hysteresis included
        assert waiting.done()
        bench.pool.submit_nowait(bench.note, "taken")
        await bench.unplug()
        assert bench.ran == ["waits", "taken"]


@pytest.mark.parametrize(
    "overflow", ["refuse", "drop oldest", "drop lowest", "caller runs", "spill"]
)
async def test_no_overflow_policy_takes_a_job_for_which_there_is_no_memory(
    process: Process, overflow: Any
) -> None:
    async with plugged(memory=LIMIT, overflow=overflow) as bench:
        queued = bench.pool.submit_nowait(bench.note, "queued")
        await uses(bench, process, 900)
        with pytest.raises(PoolFullError, match="memory runs short"):
            await bench.pool.options(priority="high").submit(bench.note, "refused")
        assert queued.state is JobState.AVAILABLE
        assert bench.pool.numbers().spilled == 0
        await uses(bench, process, 0)
        await bench.pool.submit(bench.note, "taken")


async def test_last_waiting_jobs_are_given_up_the_least_important_first(process: Process) -> None:
    async with plugged(memory=LIMIT) as bench:
        stream = bench.pool.outcomes()
        levels: list[Any] = ["low", "high", "normal", "low"] * 4
        jobs = [
            bench.pool.options(priority=level).submit_nowait(bench.note, number)
            for number, level in enumerate(levels)
        ]
        low = [job for job, level in zip(jobs, levels, strict=True) if level == "low"]
        await uses(bench, process, 1000)
        assert dropped(jobs) == low[-4:], "a quarter, the latest of the lowest"
        assert low[-1].reason is Reason.MEMORY
        with pytest.raises(JobDroppedError, match="memory ran short"):
            await low[-1]
        assert (await anext(stream)).reason is Reason.MEMORY
        await uses(bench, process, 1000)
        assert dropped(jobs) == low[-7:], "a quarter of what is left"
        await uses(bench, process, 949)
        assert len(dropped(jobs)) == 7, "it has come down a rung"
        assert bench.pool.ledger().running == 1
        await bench.unplug()
        assert len(bench.ran) == 16 - 7
        assert bench.pool.ledger().dropped == 7


def dropped(jobs: list[Job[Any]]) -> list[Job[Any]]:
    return [job for job in jobs if job.state is JobState.DROPPED]


async def test_shedding_goes_on_to_the_last_job_and_no_further(process: Process) -> None:
    async with plugged(memory=LIMIT) as bench:
        for number in range(30):
            bench.pool.submit_nowait(bench.note, number)
        process.used_bytes = 2000
        await bench.clock.advance(20)
        ledger = bench.pool.ledger()
        assert (ledger.queued, ledger.dropped, ledger.running) == (0, 30, 1)
        waiting = asyncio.ensure_future(bench.pool.submit(bench.note, "waits"))
        await bench.clock.advance(20)
        assert not waiting.done()
        await uses(bench, process, 100)
        assert waiting.done()


async def test_what_is_shed_makes_no_room_for_others_while_memory_is_short(
    process: Process,
) -> None:
    async with plugged(memory=LIMIT, queue_size=4) as bench:
        for number in range(4):
            bench.pool.submit_nowait(bench.note, number)
        waiting = asyncio.ensure_future(bench.pool.submit(bench.note, "waits"))
        await uses(bench, process, 1000)
        assert bench.pool.ledger().dropped == 1
        assert not waiting.done()
        await uses(bench, process, 0)
        assert waiting.done()


async def test_health_tells_of_it_and_heals(process: Process) -> None:
    async with plugged(memory=LIMIT) as bench:
        assert bench.pool.health().status is Status.HEALTHY
        await uses(bench, process, 1000)
        assert bench.pool.health().status is not Status.HEALTHY
        await uses(bench, process, 0)
        assert bench.pool.health().status is Status.HEALTHY


async def test_a_limit_can_be_set_and_lifted_while_the_pool_runs(process: Process) -> None:
    process.used_bytes = 950
    async with plugged() as bench:
        bench.pool.submit_nowait(bench.note, "no limit")
        assert process.looks == 0
        bench.pool.reconfigure(memory=LIMIT)
        with pytest.raises(PoolFullError, match="memory"):
            bench.pool.submit_nowait(bench.note, "limit")
        waiting = asyncio.ensure_future(bench.pool.submit(bench.note, "waits"))
        await bench.clock.advance(1)
        looks = process.looks
        assert looks == 4  # once to see whether it can be watched, then twice a second
        bench.pool.reconfigure(memory=None)
        await settle()
        assert waiting.done()
        assert len(bench.pool.engine.timers) == 0
        await bench.clock.advance(60)
        assert process.looks == looks
        assert bench.clock.sleepers == 0
        bench.pool.reconfigure(memory=replace(LIMIT, process_max_bytes=10_000))
        bench.pool.submit_nowait(bench.note, "a larger limit")


async def test_a_closed_pool_looks_no_more(process: Process) -> None:
    bench = Plugged(memory=LIMIT)
    async with bench.pool:
        assert bench.clock.sleepers == 1
    assert bench.clock.sleepers == 0
    await bench.clock.advance(60)
    assert process.looks == 1


@pytest.mark.parametrize("bounds", [(1, 1), (10, 10), (2, 10)])
async def test_an_idle_pool_without_a_limit_sets_no_timer(bounds: tuple[int, int]) -> None:
    clock = VirtualClock()
    least, most = bounds
    async with Pool(workers_min=least, workers_max=most, clock=clock) as pool:
        await settle()
        assert clock.sleepers == 0
        await (await pool.submit(asyncio.sleep, 0))
        await settle()
        assert clock.sleepers == 0
        pool.pause()
        pool.submit_nowait(asyncio.sleep, 0)
        await settle()
        assert clock.sleepers == 0, "nor does one that is paused"
        pool.resume()
