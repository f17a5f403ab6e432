"""What every store does when workers look for jobs and take them."""

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import astuple

from mailrace.errors import ConflictError
from mailrace.queue import JobState, Step, Store
from mailrace.queue.flows import Flow, Want
from mailrace.queue.jobrows import JobFilter
from mailrace.queue.jobs import Lane
from mailrace.queue.queuerules import QueueRules
from tests.queue.houses import (
    House,
    add,
    claim_all,
    claim_flows,
    claim_of,
    counts,
    ended,
    enter,
    fill,
    new,
    numbered,
    process_row,
    queue_counts,
)  # fmt: skip

# Survey


async def test_a_survey_lists_the_flows_and_how_long_they_have_waited(
    house: House, store: Store
) -> None:
    await add(store, "a", "b", queue="q", tenant="t", priority=3)
    house.clock.move_to(1.0)
    await add(store, "c", queue="q", tenant="t", priority=3)
    await add(store, "d", queue="q", tenant="t", priority=-3, delay_ms=4000)
    await add(store, "e", queue="q", tenant="u")
    await add(store, "f", queue="other", tenant="u")
    house.clock.move_to(3.0)
    flows = await store.survey(["q"])
    assert sorted(flows, key=astuple) == [
        Flow("q", "t", -3, -2000),
        Flow("q", "t", 3, 3000),
        Flow("q", "u", 0, 2000),
    ]


async def test_a_survey_of_a_star_means_all_queues(store: Store) -> None:
    for queue in ("a", "b", "*", "ä%_"):
        await add(store, "x", queue=queue)
    assert sorted(flow.queue for flow in await store.survey(["*"])) == ["*", "a", "b", "ä%_"]
    assert sorted(flow.queue for flow in await store.survey(["b", "a", "none"])) == ["a", "b"]
    assert await store.survey(["none"]) == []
    assert await store.survey([]) == []


async def test_a_flow_is_seen_while_a_job_of_it_waits(house: House, store: Store) -> None:
    process_id = await enter(store)
    await add(store, "a")
    for step in (Step.RETRY, Step.SNOOZE, Step.RELEASE, Step.DIE):
        assert await store.survey(["default"]) == [Flow("default", "", 0, 0)]
        jobs = await claim_of(store, process_id)
        assert await store.survey(["default"]) == []  # running
        await store.finish(ended(jobs, step))
    await store.finish(ended(await claim_of(store, process_id)))
    assert await store.survey(["default", "*"]) == []


async def test_a_retry_is_surveyed_by_the_time_it_is_due_at(house: House, store: Store) -> None:
    await add(store, "a")
    jobs = await claim_of(store, await enter(store))
    await store.finish(ended(jobs, Step.RETRY, delay_ms=5000))
    assert await store.survey(["*"]) == [Flow("default", "", 0, -5000)]
    house.clock.move_to(6.0)
    assert await store.survey(["*"]) == [Flow("default", "", 0, 1000)]


async def test_the_first_due_job_says_how_long_a_flow_has_waited(store: Store) -> None:
    await add(store, "late", delay_ms=60_000)
    await add(store, "soon", delay_ms=2000)
    await add(store, "later", delay_ms=90_000)
    assert await store.survey(["default"]) == [Flow("default", "", 0, -2000)]


async def test_every_one_of_a_thousand_tenants_comes_into_view(store: Store) -> None:
    tenants = list(numbered("tenant-", 1000))
    await store.enqueue([job for tenant in tenants for job in new("a", tenant=tenant)])
    seen: set[str] = set()
    for _ in range(11):
        flows = await store.survey(["default"], most=100)
        assert 0 < len(flows) <= 100
        assert len({flow.tenant for flow in flows}) == len(flows)
        seen.update(flow.tenant for flow in flows)
    assert seen == set(tenants)


async def test_every_tenant_comes_into_view_whose_jobs_have_several_priorities(
    store: Store,
) -> None:
    tenants = list(numbered("tenant-", 20))
    await store.enqueue(
        [
            job
            for tenant in tenants
            for priority in (-9, 0, 9)
            for job in new("a", tenant=tenant, priority=priority)
        ]
    )
    seen: set[str] = set()
    for _ in range(20):
        flows = await store.survey(["default"], most=7)
        assert 0 < len(flows) <= 7
        seen.update(flow.tenant for flow in flows)
    assert seen == set(tenants)


async def test_the_list_of_each_queue_is_cut_by_itself(store: Store) -> None:
    queues = ("one", "two", "small")
    await store.enqueue(
        [
            job
            for queue in queues
            for tenant in numbered("t", 3 if queue == "small" else 30)
            for job in new("a", queue=queue, tenant=tenant)
        ]
    )
    seen: dict[str, set[str]] = {queue: set() for queue in queues}
    for turn in range(4):
        asked = ["*"] if turn % 2 else list(queues)
        flows = await store.survey(asked, most=10)
        for queue, found in itertools.groupby(
            sorted(flows, key=astuple), key=lambda flow: flow.queue
        ):
            tenants = [flow.tenant for flow in found]
            assert len(tenants) == (3 if queue == "small" else 10)
            seen[queue].update(tenants)
    assert {queue: len(tenants) for queue, tenants in seen.items()} == {
        "one": 30, "two": 30, "small": 3,
    }  # fmt: skip


async def test_a_list_that_was_cut_starts_again_when_it_is_through(store: Store) -> None:
    await store.enqueue([job for tenant in "abcde" for job in new("x", tenant=tenant)])
    seen = [flow.tenant for _ in range(20) for flow in await store.survey(["*"], most=2)]
    assert {tenant: seen.count(tenant) >= 5 for tenant in "abcde"} == dict.fromkeys("abcde", True)


# Claim


async def test_jobs_are_claimed_in_the_order_they_came(store: Store) -> None:
    ids = await add(store, *numbered("k", 25))
    process_id = await enter(store)
    claims = [await claim_of(store, process_id, 10) for _ in range(4)]
    assert [len(claim) for claim in claims] == [10, 10, 5, 0]
    assert [job.id for claim in claims for job in claim] == ids
    assert {job.attempt for claim in claims for job in claim} == {1}


async def test_leases_grow_from_claim_to_claim_over_all_stores(house: House, store: Store) -> None:
    other = await house.opened()
    await add(store, *numbered("k", 20))
    one_id, other_id = await enter(store), await enter(other)
    leases: list[set[int]] = []
    for place in range(6):
        jobs = await (claim_of(other, other_id, 3) if place % 2 else claim_of(store, one_id, 3))
        leases.append({job.lease for job in jobs})
        await store.finish(ended(jobs, Step.RELEASE))
    assert all(max(one) < min(next_one) for one, next_one in itertools.pairwise(leases))


async def test_jobs_are_claimed_in_the_order_of_their_times(house: House, store: Store) -> None:
    late, soon, now, soon_too = [
        (await add(store, "x", delay_ms=delay_ms))[0] for delay_ms in (9000, 3000, 0, 3000)
    ]
    process_id = await enter(store)
    house.clock.move_to(10.0)
    claimed = [(await claim_of(store, process_id, 1))[0].id for _ in range(4)]
    assert claimed == [now, soon, soon_too, late]


async def test_waiting_jobs_of_all_kinds_stand_in_one_line(house: House, store: Store) -> None:
    """Scheduled ones, retries and released ones by the time each is due at."""
    ids = await add(store, "retry", "snooze", "plain")
    process_id = await enter(store)
    retry, snooze, _ = await claim_of(store, process_id)
    await store.finish(ended([retry], Step.RETRY, delay_ms=4000))
    await store.finish(ended([snooze], Step.SNOOZE, delay_ms=2000))
    (scheduled,) = await add(store, "scheduled", delay_ms=3000)
    house.clock.move_to(10.0)
    claimed = await claim_of(store, process_id)
    assert [job.id for job in claimed] == [ids[1], scheduled, ids[0]]


async def test_a_claim_takes_what_is_wanted_of_each_flow(store: Store) -> None:
    for tenant, priority in (("t", 0), ("t", 5), ("u", 0)):
        await add(store, *numbered("k", 5), tenant=tenant, priority=priority)
    await add(store, *numbered("k", 5), tenant="t", queue="other")
    wants = [
        Want("default", "t", 0, 2), Want("default", "u", 0, 9), Want("other", "t", 0, 1),
        Want("default", "t", 7, 3), Want("none", "t", 0, 3),
    ]  # fmt: skip
    jobs = await store.claim(await enter(store), wants)
    taken = sorted((job.queue, job.tenant, job.priority) for job in jobs)
    assert taken == [("default", "t", 0)] * 2 + [("default", "u", 0)] * 5 + [("other", "t", 0)]
    for want in wants:
        ids = [job.id for job in jobs if (job.queue, job.tenant) == (want.queue, want.tenant)]
        assert ids == sorted(ids)


async def test_a_claim_takes_many(store: Store) -> None:
    ids = await add(store, *numbered("k", 1500))
    assert [job.id for job in await claim_of(store, await enter(store), 5000)] == ids


async def test_a_claim_of_nothing_takes_nothing(store: Store) -> None:
    await add(store, "a")
    process_id = await enter(store)
    assert await store.claim(process_id, []) == []
    assert await store.claim(process_id, [Want("default", "", 0, 0)]) == []
    assert await queue_counts(store) == {JobState.AVAILABLE: 1}


async def test_only_jobs_of_the_batch_are_claimed(store: Store) -> None:
    mine, other = await fill(store, 3), await fill(store, 3, "other")
    process_id = await enter(store)
    assert len(await claim_all(store, process_id, f"batch:{mine}", 10)) == 3
    assert await counts(store, other) == {JobState.AVAILABLE: 3}


async def test_a_survey_and_claims_by_it_take_all_that_is_due(house: House, store: Store) -> None:
    await store.enqueue(
        [
            job
            for number in range(60)
            for job in new(
                "x", queue=f"q{number % 2}", tenant=f"t{number % 3}", priority=number % 5 - 2,
                delay_ms=1000 * (number % 4),
            )
        ]
    )  # fmt: skip
    house.clock.move_to(2.0)
    flows = await store.survey(["*"])
    jobs = await claim_flows(store, await enter(store), flows, 100)
    assert len({job.id for job in jobs}) == 45
    assert all(flow.waited_ms < 0 for flow in await store.survey(["*"]))


async def test_a_process_that_is_not_known_claims_nothing(store: Store) -> None:
    await add(store, "a")
    gone = await enter(store)
    assert await store.retire(gone)
    for process_id in (gone, 4711):
        with pytest.raises(ConflictError):
            await claim_of(store, process_id)
    assert await queue_counts(store) == {JobState.AVAILABLE: 1}


@pytest.mark.parametrize("step", [Step.RETRY, Step.SNOOZE], ids=str)
async def test_a_job_for_later_is_claimed_when_it_is_due(
    house: House, store: Store, step: Step
) -> None:
    batch_id = await fill(store, 2)
    queue = f"batch:{batch_id}"
    process_id = await enter(store)
    first, second = await claim_of(store, process_id, queue=queue)
    start_ms = await store.now_ms()
    house.clock.move_to(1.0)  # the delay counts from the store's present
    await store.finish(ended([first], step, delay_ms=4000, at_ms=start_ms))
    await store.finish(ended([second], step, delay_ms=8000, at_ms=start_ms))
    assert (await store.report(batch_id)).next_due_ms == start_ms + 5000
    house.clock.move_to(4.999)
    assert await claim_of(store, process_id, queue=queue) == []
    house.clock.move_to(5.0)
    (again,) = await claim_of(store, process_id, queue=queue)
    assert (again.id, again.attempt) == (first.id, 2 if step is Step.RETRY else 1)
    assert again.lease > first.lease
    assert (await store.report(batch_id)).next_due_ms == start_ms + 9000


async def test_a_lane_decides_what_is_done_once_and_else_the_kind(store: Store) -> None:
    lanes = (Lane.CAMPAIGN, Lane.TRANSACTIONAL, None)
    for kind in ("mail", "page"):
        for lane in lanes:
            await add(store, "x", kind=kind, lane=lane)
    jobs = await claim_of(store, await enter(store), once=["other", "mail"])
    assert [job.once for job in jobs] == [True, False, True, True, False, False]


async def test_what_is_done_once_is_asked_at_every_claim(store: Store) -> None:
    await add(store, "x")
    process_id = await enter(store)
    for once in ([], ["kind"], []):
        jobs = await claim_of(store, process_id, once=once)
        assert [job.once for job in jobs] == [bool(once)]
        await store.finish(ended(jobs, Step.RELEASE))


async def test_nothing_is_claimed_from_a_queue_that_is_paused(house: House, store: Store) -> None:
    other = await house.opened()
    await add(store, "a", queue="q")
    await add(store, "b", queue="free")
    one_id, other_id = await enter(store), await enter(other)
    wants = [Want("q", "", 0, 5), Want("free", "", 0, 5)]
    await store.set_queue(QueueRules(name="q", paused=True))
    jobs = await store.claim(one_id, wants)
    assert [job.queue for job in jobs] == ["free"]
    assert await other.claim(other_id, wants) == []
    await other.set_queue(QueueRules(name="q"))
    jobs = await store.claim(one_id, wants)
    assert [job.queue for job in jobs] == ["q"]


async def test_a_running_job_tells_whose_it_is(store: Store) -> None:
    await add(store, "a")
    process_id = await enter(store)
    await claim_of(store, process_id)
    (row,) = await store.find(JobFilter())
    assert (row.state, row.process_id, row.attempt) == (JobState.RUNNING, process_id, 1)


# Several processes


def in_threads(count: int, work: Callable[[], Awaitable[None]]) -> None:
    """Runs the work in so many threads at once, each with a loop of its own."""
    failures: list[BaseException] = []
    start = threading.Barrier(count)

    async def begin() -> None:
        start.wait()
        await work()

    def thread() -> None:
        try:
            asyncio.run(begin())
        except BaseException as failure:  # noqa: BLE001 - raised below, where pytest sees it
            failures.append(failure)

    threads = [threading.Thread(target=thread) for _ in range(count)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    if failures:
        raise failures[0]


async def test_stores_in_one_house_share_jobs_and_never_one_job(house: House, store: Store) -> None:
    batch_id = await fill(store, 400)
    claimed: list[tuple[int, int]] = []

    async def work() -> None:
        mine = await house.make()
        process_id = await enter(mine)
        misses = 0
        # A claim may find all that it looks at in the hands of the others just now.
        while misses < 3:
            jobs = await claim_of(mine, process_id, 7, queue=f"batch:{batch_id}")
            misses = 0 if jobs else misses + 1
            claimed.extend((job.id, job.lease) for job in jobs)
            assert await mine.finish(ended(jobs)) == 0
        await mine.close()

    await asyncio.to_thread(in_threads, 4, work)
    assert len({job_id for job_id, _ in claimed}) == len(claimed) == 400
    assert await counts(store, batch_id) == {JobState.COMPLETED: 400}


async def test_stores_opened_at_the_same_moment_make_one_of_everything(house: House) -> None:
    async def work() -> None:
        mine = await house.make()
        batch = await mine.open_batch("batch", "kind", b"{}")
        await mine.enqueue(new(*numbered("k", 50), batch_id=batch.id))
        await mine.close()

    await asyncio.to_thread(in_threads, 6, work)
    store = await house.opened()
    (batch,) = await store.batches()
    assert await counts(store, batch.id) == {JobState.AVAILABLE: 50}
    assert len(house.everything()) == 50


async def test_closing_twice_is_closing_once(store: Store) -> None:
    await store.close()
    await store.close()


async def test_begin_is_of_the_claim_and_not_of_the_job(store: Store) -> None:
    """A note of an earlier claim says nothing of this one."""
    await add(store, "a")
    old_id = await enter(store)
    old = await claim_of(store, old_id, once=["kind"])
    await store.begin(old_id, [(job.id, job.lease) for job in old])
    await store.finish(ended(old, Step.RELEASE))
    process_id = await enter(store)
    jobs = await claim_of(store, process_id, once=["kind"])
    await store.begin(old_id, [(job.id, job.lease) for job in old])  # late
    assert await store.rescue(await process_row(store, process_id), [], known=False) == 1
    expected = JobState.AVAILABLE if store.marks_begun else JobState.UNCERTAIN
    assert await queue_counts(store) == {expected: 1}
    assert await store.finish(ended(jobs)) == 1
