"""What a newcomer gets wrong at the face of the queue is refused, in words that help."""

import asyncio
import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrace.errors import ConflictError, MisuseError, UnavailableError
from mailrace.jobs import (
    Handlers,
    JobFilter,
    JobState,
    WorkerSettings,
    open_cluster,
    open_queue,
    open_worker,
)
from mailrace.queue.answers import Cancel, Fail, Retry, SlowDown, Snooze, wait_s
from mailrace.queue.limits import is_template, limit_name
from mailrace.queue.queue import Queue
from mailrace.wiring import open_store
from tests.pool.test_rate import most_in_a_window
from tests.queue.world import World

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
TIMED: list[Any] = [Retry, Snooze, SlowDown]


@pytest.fixture
def queue(world: World) -> Queue:
    return world.queue()


# Answers


@given(away_s=st.integers(-(10**7), 10**7), hours=st.integers(-12, 12))
@pytest.mark.parametrize("answer", TIMED)
def test_an_answer_may_name_a_moment_in_any_zone(answer: Any, away_s: int, hours: int) -> None:
    zone = dt.timezone(dt.timedelta(hours=hours))
    until = (NOW + dt.timedelta(seconds=away_s)).astimezone(zone)
    assert wait_s(answer(until=until), NOW.timestamp()) == max(0.0, away_s)


@pytest.mark.parametrize("answer", TIMED)
def test_an_answer_may_name_a_span(answer: Any) -> None:
    for after in (60, 60.0, dt.timedelta(minutes=1)):
        assert wait_s(answer(after), 17.0) == 60
        assert wait_s(answer(after=after, reason="why"), 17.0) == 60
    assert wait_s(answer(0), 17.0) == 0


def test_a_retry_without_a_time_leaves_it_to_the_kind() -> None:
    assert wait_s(Retry(reason="why"), 17.0) is None


@pytest.mark.parametrize("answer", TIMED)
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"after": "5m"}, "after is '5m'"),
        ({"after": -1}, "after is -1"),
        ({"after": True}, "after is True"),
        ({"until": NOW.replace(tzinfo=None)}, "until of .* with a time zone"),
        ({"until": 12}, "until of .* with a time zone"),
        ({"until": NOW, "after": 5}, "both after and until"),
        ({"after": 5, "reason": 7}, "reason of .* is 7"),
    ],
)
def test_a_time_that_is_none_is_refused_where_it_is_written(
    answer: Any, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(MisuseError, match=words) as caught:
        answer(**given)
    assert caught.value.hint


@pytest.mark.parametrize("answer", [Snooze, SlowDown])
def test_an_answer_that_needs_a_time_is_refused_without_one(answer: Any) -> None:
    with pytest.raises(MisuseError, match="neither after nor until"):
        answer()


@pytest.mark.parametrize("answer", [Cancel, Fail])
def test_a_reason_that_is_no_text_is_refused(answer: Any) -> None:
    with pytest.raises(MisuseError, match="is ValueError"):
        answer(ValueError("x"))


async def test_a_job_that_is_snoozed_until_a_moment_runs_then(world: World, queue: Queue) -> None:
    handlers, at_s = Handlers(), list[float]()

    @handlers.register("kind")
    async def handler(_: Any) -> Snooze | None:
        at_s.append(world.clock.unix_s())
        if len(at_s) > 1:
            return None
        later_s = world.clock.unix_s() + 90
        return Snooze(until=dt.datetime.fromtimestamp(later_s, dt.UTC))

    await queue.enqueue("kind")
    async with world.working(handlers):
        await world.until_counts({JobState.COMPLETED: 1})
    assert at_s[1] - at_s[0] == pytest.approx(90, abs=2)


# Enqueueing


@pytest.mark.parametrize("payloads", ["abc", b"abc", {"a": 1}, 7, None])
async def test_many_payloads_are_a_list(queue: Queue, payloads: Any) -> None:
    with pytest.raises(MisuseError, match=r"payloads is .*; give a list"):
        await queue.enqueue_many("kind", payloads)
    assert await queue.find() == []


@pytest.mark.parametrize("jobs", [["a"], [None], "a", 7])
async def test_jobs_are_made_by_the_queue(queue: Queue, jobs: Any) -> None:
    with pytest.raises(MisuseError, match=r"jobs? is "):
        await queue.enqueue_jobs(jobs)
    assert await queue.find() == []


async def test_a_schedule_or_a_batch_needs_a_job_and_no_name(queue: Queue) -> None:
    kind: Any = "kind"
    with pytest.raises(MisuseError, match=r"job is 'kind'; give queue.job\("):
        await queue.schedule("nightly", "0 3 * * *", kind)
    with pytest.raises(MisuseError, match=r"then is 'kind'; give queue.job\("):
        async with queue.batch("set", then=kind):
            pytest.fail("it was opened")
    assert await queue.store.batches() == []
    assert await queue.schedules() == []


async def test_whoever_enqueues_after_the_block_is_told_that_it_ended(tmp_path: Path) -> None:
    async with open_queue(f"sqlite:///{tmp_path}/jobs.db") as queue:
        await queue.enqueue("kind")
    for call in (queue.enqueue("kind"), queue.find(), queue.schedules()):
        with pytest.raises(UnavailableError, match="was closed"):
            await call
    await queue.close()


# Filters


@pytest.mark.parametrize(
    "change",
    [
        lambda queue, where: queue.retry(where),
        lambda queue, where: queue.cancel(where),
        lambda queue, where: queue.delete(where),
        lambda queue, where: queue.reschedule(where, 5),
    ],
)
async def test_a_change_of_all_jobs_is_refused(
    queue: Queue, change: Callable[[Queue, object], Any]
) -> None:
    job = await queue.enqueue("kind")
    for where in (JobFilter(), None, "kind"):
        with pytest.raises(MisuseError, match=r"which jobs|the filter is"):
            await change(queue, where)
    (row,) = await queue.find()
    assert (row.id, row.state) == (job.id, JobState.AVAILABLE)


async def test_no_ids_and_no_states_are_no_jobs(queue: Queue) -> None:
    await queue.enqueue("kind")
    assert await queue.cancel(JobFilter(ids=())) == 0
    assert await queue.cancel(JobFilter(states=())) == 0


@pytest.mark.parametrize("delay_s", ["5m", -1, True, float("nan"), float("inf")])
async def test_a_delay_is_seconds(queue: Queue, delay_s: Any) -> None:
    with pytest.raises(MisuseError, match="delay_s is"):
        await queue.reschedule(JobFilter(kind="kind"), delay_s)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"states": "failed"}, "states is 'failed'"),
        ({"states": ("faild",)}, "states has 'faild'.* failed"),
        ({"ids": 1}, "ids is 1"),
        ({"ids": ("1",)}, "ids is"),
        ({"ids": (True,)}, "ids is"),
        ({"ids": tuple(range(1001))}, "at most 1000"),
        ({"queue": 5}, "queue is 5"),
        ({"tag": ["a"]}, "tag is"),
        ({"batch_id": "set"}, "batch_id is 'set'"),
        ({"ended_before_ms": NOW}, "ended_before_ms is"),
    ],
)
def test_a_filter_that_is_none_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(MisuseError, match=words):
        JobFilter(**given)


def test_a_filter_takes_names_of_states_and_lists() -> None:
    given: Any = {"states": ["failed", JobState.CANCELLED], "ids": [1, 2]}
    where = JobFilter(**given)
    assert where == JobFilter(states=(JobState.FAILED, JobState.CANCELLED), ids=(1, 2))
    assert where.states is not None
    assert type(where.states[0]) is JobState


# Handlers


def test_a_handler_that_is_registered_without_a_kind_is_refused() -> None:
    async def handler(payload: int) -> None: ...

    given: Any = handler
    with pytest.raises(MisuseError, match=r"@handlers.register\(\"kind\"\)"):
        Handlers().register(given)


def test_a_handler_that_wants_more_than_it_is_given_is_refused() -> None:
    def three(payload: int, job: Any, more: int) -> None: ...
    def named(payload: int, *, more: int) -> None: ...
    def optional(payload: int, job: Any, more: int = 1, *, most: int = 2) -> None: ...

    for function in (three, named):
        with pytest.raises(MisuseError, match="wants 'more'"):
            Handlers().add("kind", function)
    assert Handlers().add("kind", optional).wants_info


# Opening


@pytest.mark.parametrize("opening", [open_queue, open_cluster])
async def test_a_store_that_is_not_named_is_asked_for(opening: Any) -> None:
    with pytest.raises(MisuseError, match="store is None; give its URL"):
        async with opening(None):
            pytest.fail("it was opened")


@pytest.mark.parametrize("handlers", [None, "kind", Handlers])
async def test_a_worker_needs_handlers(tmp_path: Path, handlers: Any) -> None:
    with pytest.raises(MisuseError, match=r"handlers is .*; give the Handlers"):
        async with open_worker(f"sqlite:///{tmp_path}/jobs.db", handlers):
            pytest.fail("it was opened")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"queues": "mail"}, "queues is 'mail'"),
        ({"queues": ["mail"]}, "queues is"),
        ({"concurrency": "5"}, "concurrency is '5'"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"concurrency": True}, "concurrency is True"),
        ({"buffer": 1.5}, "buffer is 1.5"),
    ],
)
def test_settings_that_are_none_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(MisuseError, match=words):
        WorkerSettings(**given)


async def test_a_store_in_memory_is_refused() -> None:
    with pytest.raises(MisuseError, match="has to outlive the process"):
        await open_store("sqlite:///:memory:")


@pytest.mark.parametrize(
    "url", ["postgresql://user:secret@host:port/db", "postgresql://user:secret@[::1/db"]
)
async def test_an_address_that_cannot_be_read_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(MisuseError, match="cannot be read") as caught:
        await open_store(url)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


# Schedules and limits


async def fired(world: World, queue: Queue, within_s: float) -> int:
    """How many jobs come in a while."""
    before = len(await queue.find(limit=1000))
    await world.clock.sleep_s(within_s)
    return len(await queue.find(limit=1000)) - before


async def test_a_schedule_is_paused_resumed_and_removed(world: World, queue: Queue) -> None:
    await queue.schedule("often", "@every 10s", queue.job("kind"))
    async with world.working(Handlers()):
        assert await fired(world, queue, 60) in {5, 6, 7}
        await queue.pause_schedule("often")
        await queue.schedule("often", "@every 10s", queue.job("kind"))  # as a restart would
        assert [row.paused for row in await queue.schedules()] == [True]
        await world.clock.sleep_s(5)
        assert await fired(world, queue, 60) == 0
        await queue.resume_schedule("often")
        assert await fired(world, queue, 60) >= 5
        assert await queue.remove_schedule("often")
        assert not await queue.remove_schedule("often")
        assert await queue.schedules() == []


async def test_a_schedule_that_is_not_there_cannot_be_paused(queue: Queue) -> None:
    for call in (queue.pause_schedule("x"), queue.resume_schedule("x")):
        with pytest.raises(ConflictError, match="no schedule 'x'"):
            await call


async def test_limits_are_listed_and_removed(queue: Queue) -> None:
    await queue.set_limit("a", "10/s", adaptive=True)
    ((name, rates, adaptive),) = [(x.name, x.rates, x.adaptive) for x in await queue.limits()]
    assert (name, rates, adaptive) == ("a", "10/s", True)
    assert await queue.remove_limit("a")
    assert not await queue.remove_limit("a")
    assert await queue.limits() == []


# Limits of many


@given(tenant=st.text(max_size=20))
def test_a_name_stands_for_what_is_given_and_for_nothing_that_a_tenant_writes(tenant: str) -> None:
    given = {"tenant": tenant, "process": "7", "host": "h"}
    assert limit_name("{tenant}/{process}", given) == f"{tenant}/7"
    assert limit_name("plain", given) == "plain"
    assert limit_name("{else}", given) == "{else}"
    assert limit_name("{tenant}", {**given, "tenant": "{process}"}) == "{process}"


def test_a_name_with_a_placeholder_is_a_template() -> None:
    assert all(map(is_template, ["{tenant}", "a {process} b", "{host}"]))
    assert not any(map(is_template, ["tenant", "{}", "{other}"]))


class Starts:
    """Handlers of several processes, and when each of their jobs began."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.at_s: dict[str, list[float]] = {}

    def handlers(self, process: str = "") -> Handlers:
        handlers = Handlers()

        @handlers.register("kind")
        async def handler(tenant: str) -> None:
            times_s = self.at_s.setdefault(process or tenant, [])
            times_s.append(self._world.clock.monotonic_s())
            await asyncio.sleep(0)

        return handlers


async def test_one_template_gives_each_tenant_a_limit_of_its_own(
    world: World, queue: Queue
) -> None:
    await queue.set_limit("smtp {tenant}", "10/s")
    await queue.set_limit("smtp quick", "100/s")  # one that somebody set is left alone
    await queue.configure("default", limits=("smtp {tenant}",))
    for tenant in ("a", "b", "quick"):
        await queue.enqueue_many("kind", [tenant] * 50, tenant=tenant)
    starts = Starts(world)
    async with world.working(starts.handlers()):
        await world.until_counts({JobState.COMPLETED: 150})
    assert {name: len(times_s) for name, times_s in starts.at_s.items()} == {
        "a": 50, "b": 50, "quick": 50,
    }  # fmt: skip
    for tenant in ("a", "b"):
        times_s = starts.at_s[tenant]
        assert most_in_a_window(times_s, 1.0) <= 10
        assert 3.5 < times_s[-1] - times_s[0] < 7
    quick_s = starts.at_s["quick"]
    assert quick_s[-1] - quick_s[0] < 2
    rates = {limit.name: limit.rates for limit in await queue.limits()}
    assert rates == {
        "smtp {tenant}": "10/s", "smtp a": "10/s", "smtp b": "10/s", "smtp quick": "100/s",
    }  # fmt: skip


async def test_a_template_that_changes_takes_those_with_it_that_were_made_from_it(
    world: World, queue: Queue
) -> None:
    await queue.set_limit("smtp {tenant}", "10/s")
    await queue.set_limit("smtp own", "3/s")
    await queue.set_limit("other a", "10/s")
    await queue.configure("default", limits=("smtp {tenant}",))
    await queue.enqueue("kind", "a", tenant="a")
    async with world.working(Starts(world).handlers()):
        await world.until_counts({JobState.COMPLETED: 1})
    await queue.set_limit("smtp {tenant}", "20/s", margin=0.1)
    assert {limit.name: (limit.rates, limit.margin) for limit in await queue.limits()} == {
        "smtp {tenant}": ("20/s", 0.1),
        "smtp a": ("20/s", 0.1),
        "smtp own": ("3/s", 0.0),
        "other a": ("10/s", 0.0),
    }


async def test_a_template_that_comes_late_lets_the_jobs_go_that_wait_for_it(
    world: World, queue: Queue
) -> None:
    await queue.configure("default", limits=("smtp {tenant}",))
    await queue.enqueue_many("kind", ["a"] * 5, tenant="a")
    starts = Starts(world)
    async with world.working(starts.handlers()) as worker:
        await world.clock.sleep_s(5)
        assert starts.at_s == {}
        assert "no limit 'smtp a'" in worker.vitals().trouble
        await queue.set_limit("smtp {tenant}", "10/s")
        await world.until_counts({JobState.COMPLETED: 5})


async def test_a_template_beside_another_limit_holds_too(world: World, queue: Queue) -> None:
    await queue.set_limit("all", "15/s")
    await queue.set_limit("smtp {tenant}", "10/s")
    await queue.configure("default", limits=("all", "smtp {tenant}"))
    for tenant in ("a", "b"):
        await queue.enqueue_many("kind", [tenant] * 30, tenant=tenant)
    starts = Starts(world)
    async with world.working(starts.handlers()):
        await world.until_counts({JobState.COMPLETED: 60})
    for times_s in starts.at_s.values():
        assert most_in_a_window(times_s, 1.0) <= 10
    every_s = sorted(at_s for times_s in starts.at_s.values() for at_s in times_s)
    assert most_in_a_window(every_s, 1.0) <= 15


async def test_each_process_may_have_a_limit_of_its_own(world: World, queue: Queue) -> None:
    await queue.set_limit("line {process}", "10/s")
    await queue.configure("default", limits=("line {process}",))
    await queue.enqueue_many("kind", ["x"] * 100)
    starts = Starts(world)
    workers = [
        world.worker(starts.handlers(name), store=world.house.open()) for name in ("one", "two")
    ]
    async with world.running(*workers):
        began_s = world.clock.monotonic_s()
        await world.until_counts({JobState.COMPLETED: 100})
        took_s = world.clock.monotonic_s() - began_s
        made = {f"line {worker.process_id}" for worker in workers}
        assert {limit.name for limit in await queue.limits()} == {"line {process}", *made}
    assert 4 < took_s < 9  # one limit for both would take ten seconds
    for times_s in starts.at_s.values():
        assert len(times_s) > 30
        assert most_in_a_window(times_s, 1.0) <= 10


async def test_a_host_stands_for_the_machine(world: World, queue: Queue) -> None:
    await queue.set_limit("line {host}", "10/s")
    await queue.configure("default", limits=("line {host}",))
    await queue.enqueue_many("kind", ["x"] * 5)
    async with world.working(Starts(world).handlers()) as worker:
        await world.until_counts({JobState.COMPLETED: 5})
        assert f"line {worker.host}" in {limit.name for limit in await queue.limits()}


# Vitals


async def test_a_heartbeat_tells_the_age_of_each_loop(world: World) -> None:
    async with world.working(Handlers()) as worker:
        await world.clock.sleep_s(5)
        loops_s = worker.vitals().loops_s
        assert {"claim", "rescue", "rules", "orders"} <= set(loops_s)
        assert max(loops_s.values()) == worker.vitals().stale_s
        renew = world.store.renewer(worker.process_id or 0, 30)
        await asyncio.to_thread(renew, worker.vitals())
        (row,) = await world.store.processes()
        assert set(row.vitals.loops_s) == set(loops_s)
