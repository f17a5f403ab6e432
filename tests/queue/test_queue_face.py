"""The face of the queue: enqueue, look, decide, and rules for everybody."""

import asyncio
from typing import Any

import msgspec
import pytest

from mailrace.errors import ConflictError, MisuseError
from mailrace.queue import JobState
from mailrace.queue.answers import Fail
from mailrace.queue.cron import CatchUp
from mailrace.queue.jobrows import JobFilter
from mailrace.queue.kinds import Handlers
from mailrace.queue.queue import PART, Queue
from mailrace.queue.queuerules import QueueRules
from mailrace.queue.sealing import Sealer
from tests.queue.houses import queue_counts
from tests.queue.world import World

KEY = "one:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


class Desk:
    """A handler that does as its payload says."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.cancelled: list[Any] = []
        self.handlers = Handlers()
        self.handlers.add("work", self, retry="none")

    async def __call__(self, payload: Any) -> Any:
        self.seen.append(payload)
        if payload == "fail":
            return Fail("nobody")
        if payload == "raise":
            raise ValueError("bad data")
        if payload == "hang":
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.append(payload)
        return payload


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def queue(world: World, desk: Desk) -> Queue:
    return world.queue(desk.handlers)


async def test_an_enqueued_job_is_there_and_is_done(world: World, queue: Queue, desk: Desk) -> None:
    answer = await queue.enqueue(desk, "hello", tags=["a"], priority="high")
    assert answer.new
    (row,) = await queue.find(JobFilter(ids=(answer.id,)))
    assert (row.state, row.kind, row.tags) == (JobState.AVAILABLE, "work", ("a",))
    async with world.working(desk.handlers):
        await world.until_counts({JobState.COMPLETED: 1})
    detail = await queue.detail(answer.id)
    assert detail is not None
    assert (detail.payload, detail.result) == (msgspec.Raw(b'"hello"'), msgspec.Raw(b'"hello"'))
    assert await queue.detail(999) is None


async def test_a_key_makes_one_job_of_many_calls(queue: Queue) -> None:
    first = await queue.enqueue("work", 1, idempotency_key="k")
    again = await queue.enqueue("work", 2, idempotency_key="k")
    other = await queue.enqueue("other", 3, idempotency_key="k")
    assert (first.id, first.new, again.new) == (again.id, True, False)
    assert other.new
    assert (await queue.enqueue("work", 1, unique="u")).id != first.id
    assert not (await queue.enqueue("work", 1, unique="u")).new


async def test_many_are_added_in_parts_that_fit(world: World, queue: Queue) -> None:
    answers = await queue.enqueue_many("work", (number for number in range(PART + 7)), tenant="t")
    assert len({answer.id for answer in answers}) == PART + 7
    assert await queue_counts(world.store) == {JobState.AVAILABLE: PART + 7}
    rows = await queue.find(limit=2)
    assert [row.id for row in rows] == [answers[-1].id, answers[-2].id]
    assert await queue.enqueue_many("work", []) == []
    older = await queue.find(limit=3, before_id=answers[3].id)
    assert [row.id for row in older] == [answer.id for answer in answers[2::-1]]


@pytest.mark.parametrize("choice", ["unique", "idempotency_key"])
async def test_one_key_for_many_is_refused(queue: Queue, choice: str) -> None:
    keys: Any = {choice: "k"}
    with pytest.raises(MisuseError, match=f"{choice} for many jobs"):
        await queue.enqueue_many("work", [1, 2], **keys)
    jobs = [queue.job("work", number, idempotency_key=f"k{number}") for number in range(3)]
    assert [answer.new for answer in await queue.enqueue_jobs(jobs)] == [True] * 3
    assert [answer.new for answer in await queue.enqueue_jobs(jobs)] == [False] * 3


async def test_a_batch_is_counted_and_its_completion_comes_once(
    world: World, queue: Queue, desk: Desk
) -> None:
    async with queue.batch("set", then=queue.job("work", "then")) as batch:
        await queue.enqueue_many("work", ["a", "fail", "raise"], batch_id=batch.id)
    async with world.working(desk.handlers):
        await world.until(lambda: "then" in desk.seen)
        await world.clock.sleep_s(5)
    assert desk.seen.count("then") == 1
    assert set(desk.seen[:3]) == {"a", "fail", "raise"}
    report = await queue.batch_report(batch.id)
    assert (report.accepted, report.final, report.sealed) == (3, 3, True)
    with pytest.raises(ConflictError, match="sealed"):
        await queue.enqueue("work", "late", batch_id=batch.id)
    with pytest.raises(ConflictError, match="sealed"):
        async with queue.batch("set"):
            pytest.fail("it was opened again")


async def test_a_batch_whose_block_fails_stays_open(queue: Queue) -> None:

    async def begin() -> None:
        async with queue.batch("set") as batch:
            await queue.enqueue("work", 1, batch_id=batch.id)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await begin()
    batch = await queue.store.open_batch("set", "batch", b"{}")
    assert (batch.created, batch.sealed) == (False, False)
    async with queue.batch("set") as again:
        assert again.id == batch.id
        await queue.enqueue("work", 2, batch_id=batch.id)
    assert (await queue.batch_report(batch.id)).accepted == 2


async def test_dead_letters_say_why_and_run_again(world: World, queue: Queue, desk: Desk) -> None:
    await queue.enqueue_many("work", ["fail", "raise", "raise", "fine"])
    async with world.working(desk.handlers):
        await world.until_counts({JobState.COMPLETED: 1, JobState.FAILED: 3})
        letters = await queue.dead_letters()
        assert {(one.reason, one.category) for one in letters} == {
            ("nobody", "data"), ("ValueError", "data"),
        }  # fmt: skip
        counts = await queue.dead_letter_counts()
        assert [(one.reason, one.jobs) for one in counts] == [("ValueError", 2), ("nobody", 1)]
        assert len(await queue.dead_letters(JobFilter(reason="nobody"))) == 1
        desk.seen.clear()
        assert await queue.retry(JobFilter(reason="ValueError")) == 2
        await world.until(lambda: len(desk.seen) == 2)
        await world.until_counts({JobState.COMPLETED: 1, JobState.FAILED: 3})
    assert desk.seen == ["raise", "raise"]
    assert await queue.delete(JobFilter(states=(JobState.FAILED,))) == 3
    assert await queue.dead_letters() == []
    assert await queue.retry(JobFilter(kind="work")) == 0  # a completed job is no dead letter


async def test_cancel_ends_the_handler_of_a_running_job(
    world: World, queue: Queue, desk: Desk
) -> None:
    running = await queue.enqueue("work", "hang")
    later = await queue.enqueue("work", "later", delay=3600)
    async with world.working(desk.handlers):
        await world.until(lambda: desk.seen == ["hang"])
        assert await queue.cancel(JobFilter(ids=(running.id, later.id))) == 2
        await world.until(lambda: desk.cancelled == ["hang"], 2)
        await world.until_counts({JobState.CANCELLED: 2})
    await world.assert_nothing_is_left()


async def test_waiting_jobs_get_another_time(world: World, queue: Queue, desk: Desk) -> None:
    job = await queue.enqueue("work", "later", delay=3600)
    async with world.working(desk.handlers):
        assert await queue.reschedule(JobFilter(ids=(job.id,)), 2.0) == 1
        await world.clock.sleep_s(1.5)
        assert desk.seen == []
        await world.until(lambda: desk.seen == ["later"], 2)


async def test_purge_cancels_what_waits_and_nothing_else(
    world: World, queue: Queue, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailrace.queue.queue._PURGED", 20)
    await queue.enqueue("work", "hang")
    async with world.working(desk.handlers, concurrency=1, buffer=1):
        await world.until(lambda: desk.seen == ["hang"])
        await queue.enqueue_many("work", range(50), delay=60)
        await queue.enqueue_many("work", range(50), delay=60, queue="other")
        assert await queue.purge("default") == 50
        assert await queue.purge("default") == 0
        assert await queue_counts(world.store) == {JobState.RUNNING: 1, JobState.CANCELLED: 50}
        assert await queue_counts(world.store, "other") == {JobState.SCHEDULED: 50}
        await queue.cancel(JobFilter(states=(JobState.RUNNING,)))
        await world.until(lambda: desk.cancelled == ["hang"])


async def test_a_queue_that_drains_takes_nothing_in_and_is_worked_off(
    world: World, queue: Queue, desk: Desk
) -> None:
    await queue.enqueue_many("work", range(5))
    await queue.drain("default")
    with pytest.raises(ConflictError, match="default"):
        await queue.enqueue("work", 6)
    async with world.working(desk.handlers):
        await world.until_counts({JobState.COMPLETED: 5})
    await queue.resume("default")
    assert (await queue.enqueue("work", 6)).new


async def test_a_pause_holds_a_queue_on_all_workers(world: World, queue: Queue, desk: Desk) -> None:
    await queue.pause("default")
    await queue.enqueue_many("work", range(5))
    workers = [world.worker(desk.handlers, store=world.house.open()) for _ in range(2)]
    async with world.running(*workers):
        await world.clock.sleep_s(5)
        assert desk.seen == []
        await queue.resume("default")
        resumed_s = world.clock.monotonic_s()
        await world.until_counts({JobState.COMPLETED: 5})
        assert world.clock.monotonic_s() - resumed_s < 2


async def test_rules_change_one_by_one(queue: Queue) -> None:
    assert await queue.rules("q") == QueueRules(name="q")
    await queue.configure("q", concurrency=5, limits=("a", "b"))
    await queue.pause("q")
    assert await queue.rules("q") == QueueRules(
        name="q", concurrency=5, limits=("a", "b"), paused=True
    )
    await queue.configure("q", concurrency=None, concurrency_per_key=1, ageing_s=5)
    rules = await queue.rules("q")
    assert (rules.concurrency, rules.concurrency_per_key, rules.paused) == (None, 1, True)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"speed": 5}, "'speed' is nothing that a queue has"),
        ({"name": "other"}, "'name' is nothing that a queue has"),
        ({"concurrency": 0}, "concurrency of the queue 'q' is 0"),
        ({"concurrency_per_key": -1}, "concurrency_per_key of the queue 'q' is -1"),
        ({"ageing_s": 0}, "ageing_s of the queue 'q' is 0"),
        ({"concurrency": "5"}, "concurrency of the queue 'q' is '5'"),
        ({"concurrency": True}, "concurrency of the queue 'q' is True"),
        ({"ageing_s": "5"}, "ageing_s of the queue 'q' is '5'"),
        ({"limits": "fast"}, "limits of the queue 'q' is 'fast'"),
        ({"limits": ["a", 5]}, "limits of the queue 'q' is"),
        ({"paused": "yes"}, "paused of the queue 'q' is 'yes'"),
    ],
)
async def test_rules_that_cannot_be_are_refused_and_nothing_is_changed(
    queue: Queue, changes: dict[str, Any], problem: str
) -> None:
    await queue.configure("q", concurrency=7)
    with pytest.raises(MisuseError) as caught:
        await queue.configure("q", **changes)
    assert problem in caught.value.problem
    assert await queue.rules("q") == QueueRules(name="q", concurrency=7)


@pytest.mark.parametrize("rates", ["", "fast", "0/s", "10/s, 20/s", "10/moon"])
async def test_a_limit_that_is_none_is_refused(queue: Queue, rates: str) -> None:
    with pytest.raises(MisuseError):
        await queue.set_limit("limit", rates)
    with pytest.raises(MisuseError):
        await queue.set_limit("limit", "10/s", margin=1.0)
    assert await queue.store.limits() == []


# Schedules


async def test_a_schedule_fires_each_slot_once_however_many_work(
    world: World, queue: Queue, desk: Desk
) -> None:
    await queue.schedule("tick", "*/10 * * * * *", queue.job("work", "tick"))
    workers = [world.worker(desk.handlers, store=world.house.open(), lease_s=1e6) for _ in range(3)]
    async with world.running(*workers):
        await world.clock.sleep_s(61)
    assert desk.seen == ["tick"] * 6


@pytest.mark.parametrize(
    ("catch_up", "expected"), [(CatchUp.NONE, 0), (CatchUp.ONE, 1), (CatchUp.ALL, 5)]
)
async def test_slots_that_passed_while_nobody_worked_are_caught_up_with_as_told(
    world: World, queue: Queue, desk: Desk, catch_up: CatchUp, expected: int
) -> None:
    await queue.schedule("tick", "0 * * * *", queue.job("work", "tick"), catch_up=catch_up)
    world.clock.move_to(5 * 3600 + 1800)
    async with world.working(desk.handlers):
        await world.clock.sleep_s(5)
    assert len(desk.seen) == expected


@pytest.mark.parametrize(
    ("cron", "zone"),
    [("", "UTC"), ("every day", "UTC"), ("99 * * * *", "UTC"), ("0 0 * * *", "Moon")],
)
async def test_a_schedule_that_is_none_is_refused(queue: Queue, cron: str, zone: str) -> None:
    with pytest.raises(MisuseError) as caught:
        await queue.schedule("s", cron, queue.job("work"), zone=zone)
    assert "\n" not in caught.value.problem
    assert await queue.store.schedules() == []


# Sealed payloads


async def test_sealed_payloads_are_closed_in_the_store_and_open_at_both_ends(
    world: World, desk: Desk
) -> None:
    sealer = Sealer.parse(KEY)
    queue = world.queue(desk.handlers, sealer)
    answers = await queue.enqueue_many("work", ["secret one", "secret two"])
    assert all("secret" not in str(row) for row in world.house.select("SELECT * FROM jobs"))
    detail = await queue.detail(answers[0].id)
    assert detail is not None
    assert detail.payload == msgspec.Raw(b'"secret one"')
    async with world.working(desk.handlers, sealer=sealer):
        await world.until_counts({JobState.COMPLETED: 2})
    assert sorted(desk.seen) == ["secret one", "secret two"]


async def test_it_closes_what_it_was_given_and_may_be_closed_again(
    world: World, desk: Desk
) -> None:
    async with Queue(world.house.open(), world.queue()._drafting) as queue:
        await queue.enqueue("work")
    await queue.close()
