"""What a process claims: what is there, soon seen, never too much, and nothing lost on the way."""

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence
from math import inf
from typing import Any

import pytest

from mailrace.errors import ConflictError
from mailrace.queue import ClaimedJob
from mailrace.queue.claiming import Claiming
from mailrace.queue.deal import Dealer
from mailrace.queue.flows import Flow, Want
from tests.queue.houses import add, claim_of, ended, enter, numbered
from tests.queue.world import FlakyStore, World


class Counting(FlakyStore):
    """Counts what it is asked."""

    surveys = 0
    claims = 0

    async def survey(self, queues: Sequence[str], *, most: int = 256) -> list[Flow]:
        self.surveys += 1
        return await super().survey(queues, most=most)

    async def claim(
        self, process_id: int, wants: Sequence[Want], *, once: Sequence[str] = ()
    ) -> list[ClaimedJob]:
        self.claims += 1
        return await super().claim(process_id, wants, once=once)


class Bench:
    """A process that claims."""

    def __init__(self, world: World, store: Counting, process_id: int, **choices: Any) -> None:
        self.world, self.store, self.process_id = world, store, process_id
        self.claimed: list[ClaimedJob] = []
        self.claiming = Claiming(
            store,
            Dealer(choices.pop("weights", {})),
            queues=choices.pop("queues", ["*"]),
            once=choices.pop("once", []),
            clock=world.clock,
            **choices,
        )

    async def claim(self, jobs: int) -> int:
        return await self.claiming.claim(self.process_id, jobs, self.claimed.extend)

    @property
    def by_tenant(self) -> Counter[str]:
        return Counter(job.tenant for job in self.claimed)


async def bench_of(world: World, **choices: Any) -> Bench:
    store = Counting.open(world.house.path, world.clock)
    world.house._opened.append(store)
    return Bench(world, store, await enter(store), **choices)


async def test_everything_is_claimed_and_nothing_twice(world: World) -> None:
    for tenant in ("a", "b", "c"):
        for priority in (-1, 5):
            await add(world.store, *numbered("j", 40), tenant=tenant, priority=priority)
    bench = await bench_of(world)
    while await bench.claim(50):
        assert sum(bench.by_tenant.values()) == len(bench.claimed)
    assert len({job.id for job in bench.claimed}) == len(bench.claimed) == 240
    assert await bench.claim(50) == 0


async def test_a_claim_brings_no_more_than_was_asked_for(world: World) -> None:
    for tenant in map(str, range(30)):
        await add(world.store, *numbered("j", 3), tenant=tenant)
    bench = await bench_of(world)
    for jobs in (1, 7, 29, 13):
        before = len(bench.claimed)
        assert await bench.claim(jobs) == jobs
        assert len(bench.claimed) - before == jobs


async def test_while_flows_give_what_they_are_asked_for_nobody_looks_around(world: World) -> None:
    await add(world.store, *numbered("j", 1000))
    bench = await bench_of(world)
    for _ in range(20):
        assert await bench.claim(50) == 50
    assert (bench.store.surveys, bench.store.claims) == (1, 20)
    assert await bench.claim(50) == 0
    assert bench.store.surveys == 2


async def test_a_new_flow_is_seen_within_a_moment_while_others_keep_it_busy(world: World) -> None:
    await add(world.store, *numbered("old", 1000), tenant="old")
    bench = await bench_of(world)
    await bench.claim(10)
    await add(world.store, *numbered("new", 5), tenant="new")
    await bench.claim(10)
    assert bench.by_tenant == {"old": 20}
    await world.clock.sleep_s(0.11)
    await bench.claim(10)
    assert bench.by_tenant == {"old": 25, "new": 5}


async def test_told_to_look_again_it_does_so_at_once(world: World) -> None:
    await add(world.store, *numbered("old", 100), tenant="old")
    bench = await bench_of(world)
    await bench.claim(10)
    await add(world.store, "new", tenant="new")
    bench.claiming.look_again()
    await bench.claim(10)
    assert bench.by_tenant["new"] == 1


async def test_it_knows_when_the_next_job_is_due_and_has_it_then(world: World) -> None:
    await add(world.store, "later", delay_ms=5000)
    await add(world.store, "soon", delay_ms=2000, tenant="t")
    bench = await bench_of(world)
    assert await bench.claim(10) == 0
    assert bench.claiming.due_in_s == pytest.approx(2, abs=0.01)
    await world.clock.sleep_s(2.001)
    assert await bench.claim(10) == 1
    await world.clock.sleep_s(3)
    assert await bench.claim(10) == 1
    assert await bench.claim(10) == 0
    assert bench.claiming.due_in_s is None


async def test_a_flow_that_is_empty_holds_up_no_other_flow_of_its_tenant(world: World) -> None:
    """Somebody else has taken the jobs that were seen."""
    await add(world.store, *numbered("high", 5), priority=5)
    await add(world.store, *numbered("low", 5), priority=-5)
    bench = await bench_of(world)
    assert await bench.claim(1) == 1
    other = await enter(world.store, "other")
    assert len(await claim_of(world.store, other, priority=5)) == 4
    assert await bench.claim(10) == 5
    assert {job.priority for job in bench.claimed} == {5, -5}


async def test_room_bounds_what_is_claimed(world: World) -> None:
    for tenant in ("full", "some", "free"):
        await add(world.store, *numbered("j", 20), tenant=tenant)
    rooms = {"full": 0.0, "some": 3.0, "free": inf}
    bench = await bench_of(world, room=lambda _queue, tenant: rooms[tenant])
    assert await bench.claim(20) == 20
    assert bench.by_tenant == {"some": 3, "free": 17}


async def test_without_room_nothing_is_asked_of_the_store(world: World) -> None:
    await add(world.store, *numbered("j", 20))
    bench = await bench_of(world, room=lambda _queue, _tenant: 0)
    assert await bench.claim(20) == 0
    assert bench.store.claims == 0


@pytest.mark.parametrize("queues", [["a", "b"], ["*"]])
async def test_of_its_queues_by_weight(world: World, queues: list[str]) -> None:
    for queue in ("a", "b", "c"):
        await add(world.store, *numbered(queue, 100), queue=queue)
    bench = await bench_of(world, queues=queues, weights={"a": 3, "b": 1, "c": 2})
    await bench.claim(60)
    by_queue = Counter(job.queue for job in bench.claimed)
    if "*" in queues:
        assert by_queue == {"a": 30, "b": 10, "c": 20}
    else:
        assert by_queue == {"a": 45, "b": 15}


async def test_a_tenant_beyond_what_one_survey_shows_has_its_turn(world: World) -> None:
    jobs = [f"t{number:03}" for number in range(400)]
    for tenant in jobs:
        await add(world.store, tenant, tenant=tenant)
    bench = await bench_of(world)
    while await bench.claim(50):
        await world.clock.sleep_s(0.05)
    assert set(bench.by_tenant) == set(jobs)


async def test_kinds_that_are_done_once_are_claimed_as_such(world: World) -> None:
    await add(world.store, "a")
    await add(world.store, "b", kind="pay")
    bench = await bench_of(world, once=["pay"])
    await bench.claim(10)
    assert {job.kind: job.once for job in bench.claimed} == {"kind": False, "pay": True}


async def test_a_process_that_is_not_known_any_more_is_told(world: World) -> None:
    await add(world.store, "a")
    bench = await bench_of(world)
    await world.store.retire(bench.process_id)
    with pytest.raises(ConflictError):
        await bench.claim(10)


async def test_cancelled_in_the_middle_of_a_claim_it_still_gets_the_jobs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(world.store, *numbered("j", 20))
    bench = await bench_of(world)
    asked, go_on, claim = threading.Event(), threading.Event(), bench.store._claim

    def slow(process_id: int, wants: Sequence[Want], once: Sequence[str]) -> str:
        asked.set()
        go_on.wait()
        return claim(process_id, wants, once)

    monkeypatch.setattr(bench.store, "_claim", slow)
    claiming = asyncio.create_task(bench.claim(10))
    await asyncio.to_thread(asked.wait)
    claiming.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await claiming
    assert len(bench.claimed) == 10
    assert await world.store.finish(ended(bench.claimed)) == 0
