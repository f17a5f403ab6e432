"""What once stopped a worker, or cost jobs that had no part in it."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from random import Random
from typing import Any, cast
from uuid import uuid4

import msgspec
import pytest

from mailrace.errors import MisuseError, UnavailableError
from mailrace.events import Events
from mailrace.lifecycle import Tasks
from mailrace.queue import JobState, Place, Rescuer, Step, queue_of
from mailrace.queue.answers import Fail, Retry
from mailrace.queue.attempts import Result
from mailrace.queue.finisher import Finisher, ResultRefused, write_apart
from mailrace.queue.jobrows import JobFilter
from mailrace.queue.jobs import ClaimedJob, Finished
from mailrace.queue.journal import Journal, boot_id, read_journal
from mailrace.queue.kinds import Handlers, check_kind
from mailrace.queue.limits import LimitRow
from mailrace.queue.loops import LoopFailed, Loops
from mailrace.queue.processes import NewProcess, ProcessRow, Vitals
from mailrace.queue.queuerules import QueueRules
from mailrace.queue.schedules import ScheduleRow
from mailrace.queue.session import LEASE_S, Session
from mailrace.queue.sessions import LeaseLost
from mailrace.queue.upkeep import Upkeep
from tests.queue.houses import add, claim_of, counts, enter, fill
from tests.queue.houses import ended as records
from tests.queue.world import World
from tests.support.clock import VirtualClock

BAD = msgspec.Raw(b'{"cannot":"be kept"}')


class Choosy:
    """In the place of a store's `finish`: refuses some records, and keeps count."""

    def __init__(self, *refused: int) -> None:
        self.refused = set(refused)
        self.written: list[Finished] = []
        self.calls = 0

    async def __call__(self, part: Sequence[Finished]) -> int:
        self.calls += 1
        if any(record.id in self.refused and record.step is not Step.FAIL for record in part):
            raise ValueError("not that")
        self.written += part
        return 0


def completed(jobs: int) -> list[Finished]:
    return [Finished(number, 1, Step.COMPLETE, JobState.COMPLETED) for number in range(jobs)]


def choosy(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the store take no `BAD` result, neither from its worker nor out of a journal."""
    finish, rescue = world.store.finish, world.store.rescue

    async def choosy_finish(part: Sequence[Finished]) -> int:
        if any(record.result == BAD for record in part):
            raise MisuseError("the store cannot do that")
        return await finish(part)

    async def choosy_rescue(
        process: ProcessRow, part: Sequence[Finished], *, known: bool
    ) -> int | None:
        if any(record.result == BAD for record in part):
            raise MisuseError("the store cannot do that")
        return await rescue(process, part, known=known)

    monkeypatch.setattr(world.store, "finish", choosy_finish)
    monkeypatch.setattr(world.store, "rescue", choosy_rescue)


async def claimed(world: World, batch_id: int, name: str) -> tuple[Journal, list[ClaimedJob]]:
    """A process that holds the jobs of a batch, and its journal."""
    journal = Journal.create(world.journals / f"{name}.journal", boot_id())
    process_id = await enter(world.store, journal.path.name, LEASE_S)
    jobs = await claim_of(world.store, process_id, 10, queue_of(batch_id), once=["kind"])
    return journal, jobs


# What a store refuses


@pytest.mark.parametrize("refused", [(), (0,), (9,), (3, 4), tuple(range(10))])
async def test_only_the_records_that_are_refused_are_written_as_failures(
    refused: tuple[int, ...],
) -> None:
    store = Choosy(*refused)
    found = await write_apart(store, completed(10))
    assert [refusal.job_id for refusal in found] == list(refused)
    assert [record.id for record in store.written] == list(range(10))
    for record in store.written:
        expected = JobState.FAILED if record.id in refused else JobState.COMPLETED
        assert record.state is expected
    failures = {(r.reason, r.detail, r.category) for r in store.written if r.id in refused}
    assert failures <= {("result refused", "ValueError", "system")}


async def test_what_is_refused_once_and_not_again_is_written_as_it_is() -> None:
    written: list[Finished] = []
    faults = [OSError("a hiccup")]

    async def write(part: Sequence[Finished]) -> None:
        if faults:
            raise faults.pop()
        written.extend(part)

    assert await write_apart(write, completed(1)) == []
    assert written == completed(1)


async def test_a_store_that_takes_nothing_at_all_is_not_asked_for_each_record() -> None:
    calls = 0

    async def write(part: Sequence[Finished]) -> None:
        nonlocal calls
        calls += 1
        raise MisuseError("the file is read-only")

    with pytest.raises(MisuseError, match="read-only"):
        await write_apart(write, completed(2000))
    assert calls < 20


async def test_one_result_that_the_store_refuses_stops_no_worker(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    choosy(world, monkeypatch)
    handlers, events = Handlers(), Events()
    told: list[ResultRefused] = []
    events.follow(ResultRefused, told.append)

    @handlers.register("kind", at_most_once=True)
    async def handle(number: int) -> Any:
        return BAD if number == 3 else number

    queue = world.queue(handlers)
    ids = [job.id for job in await queue.enqueue_many("kind", range(10))]
    async with world.working(handlers, events=events):
        await world.until_counts({JobState.COMPLETED: 9, JobState.FAILED: 1})
        await queue.enqueue("kind", 10)
        await world.until_counts({JobState.COMPLETED: 10, JobState.FAILED: 1})
    (row,) = await world.store.find(JobFilter(states=(JobState.FAILED,)))
    assert (row.id, row.reason, row.category) == (ids[3], "result refused", "system")
    assert [refusal.job_id for refusal in told] == [ids[3]]
    await world.assert_nothing_is_left()


async def test_a_journal_with_a_result_that_is_refused_is_taken_over_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    choosy(world, monkeypatch)
    batch_id = await fill(world.store, 5)
    journal, jobs = await claimed(world, batch_id, "dead")
    for job in jobs[:4]:
        journal.started(job.id, job.lease, once=True)
    good, bad, back = jobs[:3]
    journal.finished(records([good])[0])
    journal.finished(records([bad], result=BAD)[0])
    journal.finished(records([back], Step.RELEASE)[0])
    journal.close(keep=True)
    assert await Rescuer(world.store, world.place, world.clock).rescue() == 1
    assert await counts(world.store, batch_id) == {
        JobState.COMPLETED: 1,
        JobState.FAILED: 1,
        JobState.UNCERTAIN: 1,
        JobState.AVAILABLE: 2,
    }
    await world.assert_nothing_is_left()


async def test_a_process_that_cannot_be_rescued_does_not_stop_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [await fill(world.store, 2, name) for name in ("one", "two", "three")]
    for number, batch_id in enumerate(ids):
        journal, _ = await claimed(world, batch_id, f"p{number}")
        journal.close(keep=True)
    rescue = world.store.rescue

    async def rescue_others(process: ProcessRow, *rest: Any, **known: Any) -> int | None:
        if process.journal == "p0.journal":
            raise ValueError("not this one")
        return await rescue(process, *rest, **known)

    monkeypatch.setattr(world.store, "rescue", rescue_others)
    with pytest.raises(ValueError, match="not this one"):
        await Rescuer(world.store, world.place, world.clock).rescue()
    assert await counts(world.store, ids[0]) == {JobState.RUNNING: 2}
    for batch_id in ids[1:]:
        assert await counts(world.store, batch_id) == {JobState.AVAILABLE: 2}


async def test_a_hiccup_of_the_store_just_before_a_drain_does_no_harm(world: World) -> None:
    handlers = Handlers()
    handlers.add("kind", lambda _: None)
    await world.queue(handlers).enqueue("kind", 1)
    world.store.finish_failures = 1
    worker = world.worker(handlers)
    async with world.running(worker):
        await world.until(lambda: worker._finisher.trouble is not None)
    assert await world.store.processes() == []
    assert set(world.house.everything().values()) == {JobState.COMPLETED}


async def test_whoever_waits_for_the_store_learns_that_nobody_writes_any_more(
    world: World,
) -> None:
    finisher, faults = Finisher(world.store, world.clock), []
    world.store.fault = MisuseError("the file is read-only")
    clerk = Tasks(lambda: faults.append(1))
    clerk.start("finisher", finisher.run())
    batch_id = await fill(world.store, 1)
    journal, jobs = await claimed(world, batch_id, "own")
    finisher.add(cast("Session", Bystander(journal)), records(jobs)[0])
    with pytest.raises(MisuseError, match="read-only"):
        await finisher.settled()
    assert finisher.pending == 1
    await clerk.cancel()
    journal.close()


class Bystander:
    """Of a session only its journal."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal


@pytest.mark.parametrize("raw", [b'"\xff"', b'["\xff"]', b'"\\ud800"', b"nan", b"1 2"])
async def test_a_raw_result_that_is_no_json_is_not_kept(world: World, raw: bytes) -> None:
    handlers = Handlers()

    @handlers.register("kind")
    async def handle(_: int) -> Any:
        return msgspec.Raw(raw)

    answer = await world.queue(handlers).enqueue("kind", 1)
    async with world.working(handlers):
        await world.until_counts({JobState.COMPLETED: 1})
    detail = await world.store.detail(answer.id)
    assert detail is not None
    assert detail.result is None


# Leases


async def test_an_attempt_that_hangs_does_not_keep_its_worker_from_a_new_lease(
    world: World,
) -> None:
    handlers, done, events = Handlers(), [], Events()
    lost: list[LeaseLost] = []
    events.follow(LeaseLost, lost.append)
    hang = asyncio.Event()

    @handlers.register("hang", at_most_once=True)
    async def hangs(_: int) -> None:
        await hang.wait()

    @handlers.register("kind")
    async def handle(number: int) -> None:
        done.append(number)

    queue = world.queue(handlers)
    stuck = await queue.enqueue("hang", 0)
    worker = world.worker(handlers, events=events, grace_s=1.0, lease_s=100)
    async with world.running(worker):
        await world.until(lambda: worker._workers.committed == 1)
        assert worker._workers.session is not None
        worker._workers.session.expire()
        began_s = world.clock.monotonic_s()
        await queue.enqueue_many("kind", range(5))
        await world.until(lambda: len(done) == 5)
        assert 29 < world.clock.monotonic_s() - began_s < 40
        await world.until_counts({JobState.COMPLETED: 5, JobState.UNCERTAIN: 1})
        hang.set()
    row = await world.store.detail(stuck.id)
    assert row is not None
    assert row.row.state is JobState.UNCERTAIN


async def test_the_lease_is_renewed_after_an_error_of_any_kind(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    troubles: list[Exception | None] = []
    renewed = threading.Event()

    def renew(_: Vitals) -> bool:
        troubles.append(session.trouble)
        if len(troubles) == 1:
            raise RuntimeError("can't start new thread")
        if len(troubles) == 3:
            renewed.set()
        return True

    monkeypatch.setattr(world.store, "renewer", lambda *_: renew)
    process = NewProcess(journal="")
    session = await Session.open(
        world.store, world.place, name=uuid4(), clock=world.clock, process=process, lease_s=0.05
    )
    assert await asyncio.to_thread(renewed.wait, 20)
    await session.close(keep_journal=False)
    assert [type(trouble).__name__ for trouble in troubles[:3]] == [
        "NoneType",
        "RuntimeError",
        "NoneType",
    ]


async def test_what_was_begun_and_taken_back_is_no_death(world: World) -> None:
    """Begun by its worker, recalled, and not begun again when the process dies."""
    handlers, begun = Handlers(), asyncio.Event()

    @handlers.register("kind")
    async def hangs(_: int) -> None:
        begun.set()
        await asyncio.Event().wait()

    answer = await world.queue(handlers).enqueue("kind", 1)
    worker = world.worker(handlers, lease_s=1e6)
    task = asyncio.create_task(worker.run())
    await begun.wait()
    workers = worker._workers
    workers.pause()
    workers.recall()
    await world.until(lambda: workers.stock == 1)
    assert workers.session is not None
    journal = workers.session.journal.path
    # Its place as it would be found if the process died at this moment.
    place = Place(journals=world.journals.with_name("found"), boot=boot_id())
    place.journals.mkdir()
    (place.journals / journal.name).write_bytes(journal.read_bytes())
    await Rescuer(world.store, place, world.clock).rescue()
    found = await world.store.detail(answer.id)
    assert found is not None
    assert (found.row.state, found.row.attempt) == (JobState.AVAILABLE, 0)
    assert found.row.deaths == 0
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# Chunks


class Sly(Fail):
    """An answer that gets around the checks of its class."""

    def __post_init__(self) -> None:
        """Checks nothing."""


@pytest.mark.parametrize("odd", [Sly(cast("str", ["no text"])), Sly(cast("str", 123))])
async def test_an_odd_answer_in_a_chunk_costs_the_others_nothing(world: World, odd: Fail) -> None:
    handlers, calls = Handlers(), []

    @handlers.register("kind", chunk=5, retry="none")
    async def handle(payloads: list[int]) -> list[Any]:
        calls.append(payloads)
        return [odd, *[None] * (len(payloads) - 1)]

    await world.queue(handlers).enqueue_many("kind", range(5))
    async with world.working(handlers):
        await world.until_counts({JobState.COMPLETED: 4, JobState.FAILED: 1})
    assert calls == [[0, 1, 2, 3, 4]]
    (row,) = await world.store.find(JobFilter(states=(JobState.FAILED,)))
    assert row.category in {"data", "system"}
    assert row.attempt == 1


async def test_a_reason_to_group_by_is_not_a_whole_page(world: World) -> None:
    handlers = Handlers()

    @handlers.register("kind")
    async def handle(_: int) -> Fail:
        return Fail("x" * 10_000)

    await world.queue(handlers).enqueue("kind", 1)
    async with world.working(handlers):
        await world.until_counts({JobState.FAILED: 1})
    (row,) = await world.store.find(JobFilter(states=(JobState.FAILED,)))
    assert row.reason == "x" * 500


async def test_a_result_that_is_none_ends_its_own_job_of_a_chunk(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers = Handlers()

    @handlers.register("kind", chunk=5, at_most_once=True)
    async def handle(payloads: list[int]) -> list[Any]:
        return payloads

    worker = world.worker(handlers)

    def settled(_: object, job: ClaimedJob, answer: object) -> Result:
        odd = Result(Step.COMPLETE, cast("str", None), "")
        return odd if answer == 2 else Result(Step.COMPLETE, "", "")

    monkeypatch.setattr(worker._performer, "_settled", settled)
    await world.queue(handlers).enqueue_many("kind", range(5))
    async with world.running(worker):
        await world.until_counts({JobState.COMPLETED: 4, JobState.UNCERTAIN: 1})


async def test_a_journal_that_fills_up_in_the_middle_of_a_chunk_leaves_nothing_uncertain(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers, calls, noted = Handlers(), [], []
    started = Journal.started

    def started_or_full(journal: Journal, job_id: int, lease: int, *, once: bool) -> None:
        noted.append(job_id)
        if len(noted) == 6:
            raise UnavailableError("the disk is full")
        started(journal, job_id, lease, once=once)

    monkeypatch.setattr(Journal, "started", started_or_full)

    @handlers.register("kind", chunk=10, at_most_once=True)
    async def handle(payloads: list[int]) -> list[None]:
        calls.append(payloads)
        return [None] * len(payloads)

    await world.queue(handlers).enqueue_many("kind", range(10))
    worker = world.worker(handlers, concurrency=1)
    async with world.running(worker):
        await world.until(lambda: len(noted) == 6)
        await world.until(lambda: worker.tally.paused == 1)
        assert worker._workers.session is not None
        reading = read_journal(worker._workers.session.journal.path, boot_id())
        assert reading.started == []
        back = {record.id for record in reading.finished if record.step is Step.RELEASE}
        assert noted[4] in back
        await world.until_counts({JobState.COMPLETED: 10})
    assert sorted(itertools.chain(*calls)) == list(range(10))


# Loops and chores


async def test_a_schedule_whose_zone_is_not_known_here_stops_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers = Handlers()
    handlers.add("kind", lambda _: None)
    queue = world.queue(handlers)
    for name in ("a", "b", "c"):
        await queue.schedule(name, "* * * * * *", queue.job("kind", 1))
    schedules = world.store.schedules

    async def one_from_mars() -> list[ScheduleRow]:
        return [
            msgspec.structs.replace(row, zone="Mars/Base") if row.name == "a" else row
            for row in await schedules()
        ]

    monkeypatch.setattr(world.store, "schedules", one_from_mars)
    upkeep = Upkeep(world.store, world.clock, keep_s={})
    await world.clock.sleep_s(2)
    with pytest.raises(MisuseError, match="Mars"):
        await upkeep.turn()
    fired = {row.name for row in await schedules() if row.last_slot_ms is not None}
    assert fired == {"b", "c"}


@pytest.fixture
async def loops() -> AsyncIterator[tuple[VirtualClock, Loops, Events]]:
    clock, events = VirtualClock(), Events()
    loops = Loops(clock, Random(1), events)
    yield clock, loops, events
    await loops.cancel()


async def test_a_follower_that_raises_ends_no_loop(
    loops: tuple[VirtualClock, Loops, Events],
) -> None:
    clock, found, events = loops
    turns, reported = [], []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: reported.append(str(context.get("exception")))
    )

    def follower(_: LoopFailed) -> None:
        raise ValueError("the log is broken")

    async def turn() -> float:
        turns.append(1)
        if len(turns) == 1:
            raise UnavailableError("the store is out of reach")
        return 1.0

    events.follow(LoopFailed, follower)
    found.start("loop", turn)
    await clock.advance(5)
    assert len(turns) > 3
    assert reported == ["the log is broken"]


async def test_a_loop_that_is_cancelled_from_within_goes_on(
    loops: tuple[VirtualClock, Loops, Events],
) -> None:
    clock, found, _ = loops
    turns = []

    async def turn() -> float:
        turns.append(1)
        if len(turns) == 1:
            gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            gone.cancel()
            await gone
        return 1.0

    found.start("loop", turn)
    await clock.advance(0.1)
    assert list(found.faults) == ["loop"]
    await clock.advance(5)
    assert len(turns) > 3
    assert found.faults == {}


async def test_a_worker_that_cannot_claim_says_so_for_as_long_as_it_cannot(world: World) -> None:
    handlers = Handlers()
    handlers.add("kind", lambda _: None)
    await world.queue(handlers).enqueue("kind", 1)
    worker = world.worker(handlers, lease_s=1e6)
    world.store.claim_failures = None
    async with world.running(worker):
        await world.until(lambda: "not usable" in worker.vitals().trouble)
        await world.clock.sleep_s(60)
        assert "not usable" in worker.vitals().trouble
        world.store.claim_failures = 0
        await world.until_counts({JobState.COMPLETED: 1})
        await world.until(lambda: not worker.vitals().trouble)


async def test_writers_that_were_cancelled_first_leave_the_rest_to_the_journal(
    world: World,
) -> None:
    """As when a program cancels all of its tasks at once."""
    batch_id = await fill(world.store, 1)
    sessions = world.worker(Handlers())._sessions
    session = await Session.open(
        world.store, world.place, name=uuid4(), clock=world.clock, process=NewProcess(journal="")
    )
    (job,) = await claim_of(world.store, session.process_id, 1, queue_of(batch_id))
    sessions._finisher.add(session, records([job])[0])
    clerk = Tasks(lambda: None)
    clerk.start("finisher", world.clock.sleep_s(1e9))
    await asyncio.sleep(0)
    await clerk.cancel()
    assert not await sessions._settle(session, clerk)
    await session.close(keep_journal=True)


@pytest.mark.parametrize("kind", ["a\0b", "a\nb", "a\x1bb", "a\x85b", "a\u2028b", "a\ud800b", ""])
def test_a_kind_is_one_line_of_text(kind: str) -> None:
    with pytest.raises(MisuseError) as refusal:
        check_kind(kind)
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("kind", ["mail.send", "Rechnung für Öl", "a\u00a0b", "👩‍👧"])
def test_a_kind_may_be_any_text_of_one_line(kind: str) -> None:
    check_kind(kind)


async def test_the_place_of_a_job_that_ended_is_taken_at_once(world: World) -> None:
    """A look that finds nothing, as the queue is full, is no reason to wait for the next one."""
    handlers = Handlers()

    async def nap(_: object) -> None:
        await world.clock.sleep_s(0.8)

    handlers.add("kind", nap)
    await world.store.set_queue(QueueRules(name="default", concurrency=1))
    await add(world.store, *(f"j{number}" for number in range(10)))
    async with world.working(handlers):
        await world.until_counts({JobState.COMPLETED: 10})
    assert world.clock.monotonic_s() < 10 * 0.9


async def test_a_short_retry_is_not_late_where_nothing_else_waits(world: World) -> None:
    handlers, begun = Handlers(), list[float]()

    async def fail_slowly(_: object) -> Retry | None:
        begun.append(world.clock.monotonic_s())
        await world.clock.sleep_s(1.2)
        return Retry(0.05) if len(begun) < 4 else None

    handlers.add("kind", fail_slowly)
    await add(world.store, "a")
    async with world.working(handlers):
        await world.until_counts({JobState.COMPLETED: 1})
    assert max(after - before for before, after in pairwise(begun)) < 1.4


@pytest.mark.parametrize("heartbeat_s", [0.1, 5.0])
async def test_a_claim_whose_answer_takes_long_is_not_handed_back(
    world: World, monkeypatch: pytest.MonkeyPatch, heartbeat_s: float
) -> None:
    """However often this process looks for claims of its own that nobody knows of."""
    claim = world.store.claim

    async def claim_slowly(*args: Any, **choices: Any) -> list[ClaimedJob]:
        jobs = await claim(*args, **choices)
        await world.clock.sleep_s(11 if jobs else 0)
        return jobs

    monkeypatch.setattr(world.store, "claim", claim_slowly)
    handlers, done = Handlers(), list[object]()

    async def note(payload: object) -> None:
        done.append(payload)

    handlers.add("kind", note)
    await add(world.store, *(f"j{number}" for number in range(20)))
    async with world.working(handlers, heartbeat_s=heartbeat_s):
        await world.until_counts({JobState.COMPLETED: 20})
    assert len(done) == 20


@pytest.mark.parametrize(("rates", "jobs", "within_s"), [("5/s", 50, 10.5), ("2/s", 20, 10.5)])
async def test_a_low_limit_is_used(world: World, rates: str, jobs: int, within_s: float) -> None:
    """Whoever was let go leaves room for the next one to be claimed at once."""
    handlers = Handlers()
    handlers.add("kind", _nothing)
    await world.store.set_limit(LimitRow(name="low", rates=rates))
    await world.store.set_queue(QueueRules(name="default", limits=("low",)))
    await add(world.store, *(f"j{number}" for number in range(jobs)))
    async with world.working(handlers):
        await world.until_counts({JobState.COMPLETED: jobs})
    assert world.clock.monotonic_s() < within_s


async def test_a_limit_that_is_changed_by_hand_is_known_to_those_who_wait_for_it(
    world: World,
) -> None:
    handlers = Handlers()
    handlers.add("kind", _nothing)
    await world.store.set_limit(LimitRow(name="low", rates="1/h"))
    await world.store.set_queue(QueueRules(name="default", limits=("low",)))
    await add(world.store, "a", "b", "c")
    async with world.working(handlers):
        await world.until(lambda: world.clock.monotonic_s() > 5)
        await world.store.set_limit(LimitRow(name="low", rates="100/s"))
        await world.until_counts({JobState.COMPLETED: 3})
    assert world.clock.monotonic_s() < 10


async def _nothing(_: object) -> None:
    """Does nothing."""
