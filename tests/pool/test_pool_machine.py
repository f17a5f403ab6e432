"""The whole pool under anything that can be done to it, in any order, on a virtual clock."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from random import Random
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from mailrace.pool import (
    Backoff,
    BreakerSettings,
    CloseReport,
    JobState,
    PoolClosedError,
    PoolFullError,
    PoolSettings,
    RateLimit,
    RetryPolicy,
    RetrySchedule,
)
from tests.pool.workbench import Act, Note, Slow, Workbench
from tests.support.clock import settle

T = TypeVar("T")

NO_GATES: dict[str, Any] = {
    "rate": None,
    "key_rate": None,
    "worker_rate": None,
    "breaker": None,
    "key_breaker": None,
}
BREAKER = BreakerSettings(failures=2, break_s=3.0, break_max_s=10.0, probe_lease_s=5.0)
RETRIES = (
    None,
    RetryPolicy(delays=RetrySchedule((1.0, 2.0))),
    RetryPolicy(delays=Backoff(attempts=3, first_s=4.0)),
    RetryPolicy(delays=RetrySchedule((0.0,))),
)
CHANGES: tuple[dict[str, Any], ...] = (
    {"queue_size": 1},
    {"queue_size": 3},
    {"queue_size": 8},
    {"queue_bytes": 20},
    {"queue_bytes": None},
    {"workers": 1},
    {"workers": 3},
    {"workers_min": 1, "workers_max": 4, "idle_timeout": 5.0, "scale_up_at": 2},
    {"metrics": False},
    {"metrics": True},
    {"fair_keys": True},
    {"fair_keys": False},
    {"ageing": 0.5},
    {"cancel_grace": 0.5},
    {"cancel_grace": 2.0},
    {"dead_letters": 1},
    {"abandoned_max": 1},
    {"abandoned_max": None},
    {"rate": "2/s"},
    {"rate": "3/2s, 5/10s"},
    {"key_rate": "1/s"},
    {"worker_rate": "1/2s"},
    {"breaker": BREAKER},
    {"key_breaker": BREAKER},
    NO_GATES,
)
OVERFLOWS = ("wait", "refuse", "drop oldest", "drop lowest", "caller runs", "spill")

spans_s = st.sampled_from((0.5, 1.0, 2.0, 5.0))
acts = st.builds(
    Act,
    takes_s=st.sampled_from((None, 0.0, 0.5, 1.0, 3.0, 20.0)),
    ends=st.sampled_from(("return", "return", "raise", "retry later", "cancel itself")),
    cancelled=st.sampled_from(("obey", "slow", "ignore", "return")),
    nested=st.sampled_from((0, 0, 0, 0, 1, 2)),
    together=st.booleans(),
)
plans = st.lists(acts, min_size=1, max_size=3).map(tuple)
options = st.fixed_dictionaries(
    {},
    optional={
        "priority": st.sampled_from(("high", "low", 5)),
        "key": st.sampled_from(("a", "b")),
        "timeout": spans_s,
        "deadline": spans_s,
        "expires": spans_s,
        "wait": spans_s,
        "retry": st.sampled_from(RETRIES),
        "size_bytes": st.integers(0, 10),
        "cost": st.sampled_from((1, 1, 2)),
    },
)


class Tended:
    """A workbench on a loop of its own, looked over after everything that is done to it."""

    def __init__(self, overflow: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._exits = ExitStack()
        changes: Any = {"overflow": overflow, "overflow_size": 2, "workers_min": 2}
        settings = PoolSettings(workers_max=2, queue_size=3, cancel_grace=1.0).changed(**changes)
        self.bench = Workbench(settings)
        self._exits.enter_context(self.bench.watching())
        self.closing: list[asyncio.Task[CloseReport]] = []
        self.draining: list[asyncio.Task[None]] = []
        self._taken = 0
        self._killed = 0
        self._queue_size = settings.queue_size
        self._crowd = 0
        self._retried = 0
        self._waiting_bytes = 0
        self.faults: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, fault: self.faults.append(fault))
        self.run(self.bench.pool.start())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        async def settled() -> T:
            result = await work
            await settle()
            return result

        return self.loop.run_until_complete(settled())

    # What can be done.

    def submit(self, plan: tuple[Act, ...], how: dict[str, Any], *, at_once: bool) -> None:
        async def submit() -> None:
            cost = how.get("cost", 1)
            if cost > self.cost_max:
                return
            if at_once:
                self.bench.submit_nowait(Note(plan), **how)
            else:
                self.bench.submit(Note(plan), **how)

        self.run(submit())

    @property
    def cost_max(self) -> int:
        settings = self.bench.pool.settings
        rates: list[Any] = [settings.rate, settings.key_rate, settings.worker_rate]
        return min((RateLimit.of(rate).cost_max for rate in rates if rate), default=9)

    def cancel_submitter(self, which: int) -> None:
        waiting = [task for task in self.bench.submitters if not task.done()]
        if waiting:
            task = waiting[which % len(waiting)]
            self.bench.submitters[task].asked_to_end = True
            task.cancel()

    def cancel_job(self, which: int) -> None:
        jobs = [note for note in self.bench.notes if note.job and not note.job.done()]
        if jobs:
            note = jobs[which % len(jobs)]
            assert note.job is not None
            note.asked_to_end = True
            note.job.cancel()

    def cancel_worker(self, which: int) -> None:
        """As by a fault of the program around the pool."""
        tasks = sorted(self.bench.worker_tasks(), key=asyncio.Task.get_name)
        if tasks:
            self._killed += 1
            tasks[which % len(tasks)].cancel()

    def cancel_many(self, *, key: str | None, purge: bool) -> None:
        for note in self.bench.notes:
            note.asked_to_end = True
        if purge:
            self.bench.pool.purge()
        else:
            self.bench.pool.cancel(key=key)

    def reconfigure(self, changes: dict[str, Any]) -> None:
        self.bench.pool.reconfigure(**changes)
        self.bench.limits_since_s = self.bench.clock.monotonic_s()

    def close(self, timeout_s: float | None, *, finish_queue: bool) -> None:
        work = self.bench.pool.close(timeout_s, finish_queue=finish_queue)
        self.closing.append(self.loop.create_task(work))

    def drain(self) -> None:
        self.draining.append(self.loop.create_task(self.bench.pool.drain()))

    def act(self, do: Any, *args: Any, **kwargs: Any) -> None:
        """Does something inside the loop, and lets everything settle."""

        async def acting() -> None:
            try:
                do(*args, **kwargs)
            except PoolClosedError:
                assert self.closing or self.bench.closes

        self.run(acting())

    # What has to hold then.

    def check(self) -> None:
        self.run(self._check())

    async def _check(self) -> None:
        assert not self.faults, self.faults
        self._check_ledger()
        self._check_outcomes()
        self._check_bounds()
        self._check_rates()
        self._check_workers()
        for follower in self.bench.followers:
            follower.check()

    def _check_ledger(self) -> None:
        ledger, counts = self.bench.pool.ledger(), self.bench.counts()
        assert ledger.balanced, ledger
        assert ledger.accepted == len(self.bench.accepted())
        assert sorted(job.id for job in self.bench.accepted()) == [*range(1, ledger.accepted + 1)]
        assert ledger.queued == counts[JobState.AVAILABLE]
        assert ledger.delayed == counts[JobState.RETRYABLE]
        assert ledger.running == counts[JobState.RUNNING]
        assert ledger.completed == counts[JobState.COMPLETED]
        assert ledger.failed == counts[JobState.FAILED]
        assert ledger.cancelled == counts[JobState.CANCELLED]
        assert ledger.expired == counts[JobState.EXPIRED]
        assert ledger.dropped == counts[JobState.DROPPED]
        assert ledger.handed_back == counts[JobState.HANDED_BACK]

    def _check_outcomes(self) -> None:
        for note in self.bench.notes:
            job = note.job
            if job is None:
                continue
            assert note.told == job.done()
            assert note.runs == job.attempts
            match job.state:
                case JobState.COMPLETED:
                    assert note.returned == [job.attempts]
                    assert job.summary().value == job.attempts
                case JobState.CANCELLED:
                    assert note.asked_to_end or note.was_cancelled
                case JobState.EXPIRED:
                    assert not note.inside
                    assert job.perishes_s is not None
                    assert job.perishes_s <= self.bench.clock.monotonic_s()
                case JobState.HANDED_BACK:
                    assert self.closing or self.bench.closes
                case _:
                    pass
        for task, note in self.bench.submitters.items():
            if task.done() and note.job is None and not note.runs:
                assert task.cancelled() or isinstance(
                    task.exception(), PoolFullError | PoolClosedError
                )

    def _check_bounds(self) -> None:
        """No more wait than may; those that wait too long already keep out only new ones."""
        pool, engine = self.bench.pool, self.bench.pool.engine
        intake = engine.intake
        ledger, size = pool.ledger(), pool.settings.queue_size
        waiting = ledger.unfinished - ledger.running - len(intake.spilled)
        came_back, self._retried = self.bench.retried - self._retried, self.bench.retried
        taken = size - intake.room  # also by those who are on their way in
        assert 0 <= taken - waiting <= len(engine.crew.resuming)
        assert taken <= max(size, self._queue_size, self._taken) + came_back
        self._taken, self._queue_size = taken, size
        self._check_bytes(came_back)

    def _check_bytes(self, came_back: int) -> None:
        pool, intake = self.bench.pool, self.bench.pool.engine.intake
        states, spilled = (JobState.AVAILABLE, JobState.RETRYABLE), intake.spilled.values()
        those = [job for job in self.bench.accepted() if job.state in states]
        waiting = sum(job.terms.size_bytes or 0 for job in those if job not in spilled)
        most = pool.settings.queue_bytes
        if most is None:
            assert intake.queued_bytes == 0
        else:
            assert waiting <= max(most, self._waiting_bytes) + 10 * came_back
            if not pool.engine.crew.resuming:
                assert intake.queued_bytes == waiting
        self._waiting_bytes = waiting

    def _check_rates(self) -> None:
        """In the window that ends with any start there are no more than the limit says."""
        settings = self.bench.pool.settings
        starts = [start for start in self.bench.starts if start.at_s > self.bench.limits_since_s]
        if not starts:
            return
        last = starts[-1]
        scopes: tuple[tuple[Any, list[Any]], ...] = (
            (settings.rate, starts),
            (settings.key_rate, [start for start in starts if start.key == last.key]),
            (settings.worker_rate, [start for start in starts if start.worker == last.worker]),
        )
        for limit, those in scopes:
            for rate in RateLimit.of(limit).rates if limit else ():
                began_s = last.at_s - rate.window_s
                costs = (min(start.cost, self.cost_max) for start in those if start.at_s > began_s)
                used = sum(costs)
                assert used <= rate.count, f"{used} in {rate}"

    def _check_workers(self) -> None:
        pool, engine = self.bench.pool, self.bench.pool.engine
        numbers, settings = pool.numbers(), pool.settings
        assert numbers.deaths <= self._killed, "a worker died of a fault"
        assert numbers.workers == len(self.bench.worker_tasks())
        assert settings.workers_min <= engine.crew.size <= settings.workers_max
        assert not self.bench.crowded, "an attempt began although there was no place for it"
        crowd = self.bench.working
        assert crowd <= max(engine.crew.size, self._crowd), "more jobs run than workers are meant"
        self._crowd = crowd
        capped = settings.abandoned_max or len(self.bench.notes)
        held = engine.gated or engine.paused or engine.closed or engine.books.streams.stalled
        if engine.backlog and not held and numbers.abandoned < capped:
            assert engine.crew.active >= engine.crew.size, "a job waits, and a worker too"

    # The end.

    def finish(self) -> None:
        """Opens everything that may hold jobs back, closes the pool, and looks for leftovers."""
        try:
            self.run(self._finish())
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Leaves nothing behind of a life that went wrong."""
        self._exits.close()
        for _ in range(100):
            if not (left := asyncio.all_tasks(self.loop)):
                break
            for task in left:
                task.cancel()
            self.loop.run_until_complete(asyncio.wait(left, timeout=0))
        self.loop.close()

    async def _finish(self) -> None:
        bench, pool = self.bench, self.bench.pool
        for follower in bench.followers:
            follower.closed = True
            follower.stream.close()
        if not self.closing and not bench.closes:
            pool.resume()
            pool.reconfigure(**NO_GATES, abandoned_max=None)
        closing = asyncio.ensure_future(pool.close(None if not pool.engine.paused else 0.0))
        report = await bench.until(closing)
        for earlier in self.closing:
            assert await bench.until(earlier) is report
        for task in (*bench.submitters, *self.draining):
            await bench.until(asyncio.ensure_future(asyncio.wait((task,))))
        await bench.clock.advance(100.0)  # who ignored a cancel comes back
        await self._check()
        handed_back = [job.id for job in bench.accepted() if job.state is JobState.HANDED_BACK]
        assert [job.id for job in report.unfinished] == sorted(handed_back)
        assert pool.ledger().unfinished == 0
        assert not bench.worker_tasks()
        assert not len(pool.engine.timers)
        assert not bench.clock.sleepers
        assert asyncio.all_tasks() == {asyncio.current_task()}


TIMEOUTS_S = {"none": None, "now": 0.0, "soon": 1.0, "later": 10.0}


class PoolMachine(RuleBasedStateMachine):
    """Everything that a program can do to a pool."""

    tended: Tended

    @initialize(overflow=st.sampled_from(OVERFLOWS))
    def start(self, overflow: str) -> None:
        self.tended = Tended(overflow)

    @rule(plan=plans, how=options, at_once=st.booleans(), count=st.sampled_from((1, 1, 2, 4)))
    def submit(self, plan: tuple[Act, ...], how: dict[str, Any], at_once: bool, count: int) -> None:
        for _ in range(count):
            self.tended.submit(plan, how, at_once=at_once)

    @rule(which=st.integers(0, 9))
    def cancel_submitter(self, which: int) -> None:
        self.tended.act(self.tended.cancel_submitter, which)

    @rule(which=st.integers(0, 9))
    def cancel_job(self, which: int) -> None:
        self.tended.act(self.tended.cancel_job, which)

    @rule(which=st.integers(0, 9))
    def cancel_worker(self, which: int) -> None:
        self.tended.act(self.tended.cancel_worker, which)

    @rule(key=st.sampled_from((None, "a", "b")), purge=st.booleans())
    def cancel_many(self, key: str | None, purge: bool) -> None:
        self.tended.act(self.tended.cancel_many, key=key, purge=purge)

    @rule(seconds=st.sampled_from((0.1, 0.5, 1.0, 3.0, 30.0)))
    def wait(self, seconds: float) -> None:
        self.tended.run(self.tended.bench.clock.advance(seconds))

    @rule(intake=st.booleans())
    def pause(self, intake: bool) -> None:
        self.tended.act(self.tended.bench.pool.pause, intake=intake)

    @rule()
    def resume(self) -> None:
        self.tended.act(self.tended.bench.pool.resume)

    @rule(change=st.integers(-2, 2))
    def scale(self, change: int) -> None:
        self.tended.act(self.tended.bench.pool.scale, change)

    @rule()
    def restart_workers(self) -> None:
        self.tended.act(self.tended.bench.pool.restart_workers)

    @rule(changes=st.sampled_from(CHANGES))
    def reconfigure(self, changes: dict[str, Any]) -> None:
        self.tended.act(self.tended.reconfigure, changes)

    @rule(overflow=st.sampled_from(OVERFLOWS))
    def change_overflow(self, overflow: str) -> None:
        self.tended.act(self.tended.reconfigure, {"overflow": overflow})

    @rule()
    def reset_breakers(self) -> None:
        self.tended.act(self.tended.bench.pool.reset_breakers)

    @precondition(lambda self: len(self.tended.bench.followers) < 3)
    @rule(
        buffer=st.sampled_from((1, 3, 100)),
        slow=st.sampled_from(("drop oldest", "drop newest", "wait")),
    )
    def follow(self, buffer: int, slow: Slow) -> None:
        self.tended.act(self.tended.bench.follow, buffer, slow)

    @precondition(lambda self: self.tended.bench.followers)
    @rule(which=st.integers(0, 2), most=st.sampled_from((1, 5, 100)))
    def read(self, which: int, most: int) -> None:
        followers = self.tended.bench.followers
        self.tended.run(followers[which % len(followers)].read(most))

    @rule()
    def drain(self) -> None:
        self.tended.act(self.tended.drain)

    @precondition(lambda self: len(self.tended.bench.notes) > 5)
    @rule(timeout=st.sampled_from(sorted(TIMEOUTS_S)), finish_queue=st.booleans())
    def close(self, timeout: str, finish_queue: bool) -> None:
        self.tended.act(self.tended.close, TIMEOUTS_S[timeout], finish_queue=finish_queue)

    @invariant()
    def everything_adds_up(self) -> None:
        self.tended.check()

    def teardown(self) -> None:
        if hasattr(self, "tended"):
            self.tended.finish()


PoolMachineTest = PoolMachine.TestCase
PoolMachineTest.settings = given_settings(
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


def random_act(random: Random) -> Act:
    if random.random() < 0.01:
        return Act(ends="close pool")
    return Act(
        takes_s=random.choice((None, 0.0, 0.5, 1.0, 3.0, 20.0)),
        ends=random.choice(("return", "return", "raise", "retry later", "cancel itself")),
        cancelled=random.choice(("obey", "slow", "ignore", "return")),
        nested=random.choice((0, 0, 0, 0, 1, 2)),
        together=random.random() < 0.5,
    )


def random_options(random: Random) -> dict[str, Any]:
    """Few options at a time, so that not every job ends before it starts."""
    spans_s = (0.5, 1.0, 2.0, 5.0)
    every = {
        "priority": random.choice(("high", "low", 5)),
        "key": random.choice(("a", "b")),
        "timeout": random.choice(spans_s),
        "deadline": random.choice(spans_s),
        "expires": random.choice(spans_s),
        "wait": random.choice(spans_s),
        "retry": random.choice(RETRIES),
        "size_bytes": random.randint(0, 10),
        "cost": random.choice((1, 1, 2)),
    }
    return {name: value for name, value in every.items() if random.random() < 0.3}


def submit_some(random: Random, tended: Tended) -> None:
    plan = tuple(random_act(random) for _ in range(random.randint(1, 3)))
    how, at_once = random_options(random), random.random() < 0.4
    for _ in range(random.choice((1, 1, 2, 4))):
        tended.submit(plan, how, at_once=at_once)


def follow_some(random: Random, tended: Tended) -> None:
    slow: Slow = random.choice(("drop oldest", "drop newest", "wait"))
    if len(tended.bench.followers) < 3:
        tended.act(tended.bench.follow, random.choice((1, 3, 100)), slow)


def read_some(random: Random, tended: Tended) -> None:
    if tended.bench.followers:
        follower = random.choice(tended.bench.followers)
        tended.run(follower.read(random.choice((1, 5, 100))))


def cancel_some(random: Random, tended: Tended) -> None:
    key, purge = random.choice((None, "a", "b")), random.random() < 0.5
    tended.act(tended.cancel_many, key=key, purge=purge)


def close_somehow(random: Random, tended: Tended) -> None:
    timeout_s = random.choice(tuple(TIMEOUTS_S.values()))
    tended.act(tended.close, timeout_s, finish_queue=random.random() < 0.5)


WAITS_S = (0.1, 0.5, 1.0, 3.0, 30.0)
# What is done, and how often of 43 times.
DEEDS: tuple[tuple[float, Callable[[Random, Tended], None]], ...] = (
    (12, submit_some),
    (8, lambda random, tended: tended.run(tended.bench.clock.advance(random.choice(WAITS_S)))),
    (2, lambda random, tended: tended.act(tended.cancel_submitter, random.randrange(10))),
    (3, lambda random, tended: tended.act(tended.cancel_job, random.randrange(10))),
    (1, lambda random, tended: tended.act(tended.cancel_worker, random.randrange(10))),
    (1, cancel_some),
    (1, lambda random, tended: tended.act(tended.bench.pool.pause, intake=random.random() < 0.5)),
    (2, lambda _, tended: tended.act(tended.bench.pool.resume)),
    (2, lambda random, tended: tended.act(tended.bench.pool.scale, random.randint(-2, 2))),
    (1, lambda _, tended: tended.act(tended.bench.pool.restart_workers)),
    (4, lambda random, tended: tended.act(tended.reconfigure, random.choice(CHANGES))),
    (2, lambda random, tended: tended.act(tended.reconfigure, random_overflow(random))),
    (1, follow_some),
    (3, read_some),
    (0.5, lambda _, tended: tended.act(tended.drain)),
    (0.3, close_somehow),
)


def random_overflow(random: Random) -> dict[str, Any]:
    return {"overflow": random.choice(OVERFLOWS)}


def live(seed: int, steps: int) -> None:
    """A pool's whole life, decided by a number."""
    random = Random(seed)
    tended = Tended(random.choice(OVERFLOWS))
    often, deeds = zip(*DEEDS, strict=True)
    try:
        for _ in range(steps):
            random.choices(deeds, often)[0](random, tended)
            tended.check()
    except BaseException:
        tended.abandon()
        raise
    tended.finish()


@pytest.fixture
def tended() -> Iterator[Tended]:
    tended = Tended("wait")
    tended.act(tended.reconfigure, {"workers": 1})
    yield tended
    tended.check()
    tended.finish()


@pytest.mark.parametrize("between", [NO_GATES, {"key_breaker": None, "rate": "9/s"}])
def test_a_job_hands_its_tickets_back_to_the_breakers_that_gave_them(
    tended: Tended, between: dict[str, Any]
) -> None:
    second = (Act(takes_s=1.0),)
    for changes in ({"key_breaker": BREAKER}, between, {"key_breaker": BREAKER}, between):
        tended.act(tended.reconfigure, changes)
        for key in ("a", "b"):
            tended.submit(second, {"key": key}, at_once=True)
            tended.run(tended.bench.clock.advance(0.6))
            tended.check()


def test_a_worker_that_rests_for_its_limit_goes_on_when_the_limit_goes(tended: Tended) -> None:
    tended.act(tended.reconfigure, {"worker_rate": "1/h"})
    for _ in range(2):
        tended.submit((Act(),), {}, at_once=True)
    assert tended.bench.pool.ledger().queued == 1
    tended.act(tended.reconfigure, {"worker_rate": None})
    assert tended.bench.pool.ledger().completed == 2


def test_a_job_that_costs_more_than_a_new_limit_lets_through_still_runs(tended: Tended) -> None:
    tended.act(tended.bench.pool.pause)
    for _ in range(2):
        tended.submit((Act(),), {"cost": 2}, at_once=True)
    tended.act(tended.reconfigure, {"rate": "1/s"})
    tended.act(tended.bench.pool.resume)
    assert tended.bench.pool.ledger().completed == 1
    tended.run(tended.bench.clock.advance(2.0))
    assert tended.bench.pool.ledger().completed == 2


def test_who_waits_for_a_gate_to_run_a_job_itself_hears_of_the_end(tended: Tended) -> None:
    tended.act(tended.reconfigure, {"overflow": "caller runs", "rate": "1/h", "queue_size": 1})
    for _ in range(2):
        tended.submit((Act(),), {}, at_once=True)
    tended.submit((Act(),), {}, at_once=False)
    (submitter,) = tended.bench.submitters
    assert not submitter.done()
    tended.act(tended.close, 0.0, finish_queue=True)
    assert isinstance(submitter.exception(), PoolClosedError)


LIFE_STEPS = 60


def test_lives_decided_by_numbers_keep_the_books() -> None:
    """`MAILRACE_TEST_STEPS` makes it longer, `MAILRACE_TEST_SEED` makes it others."""
    steps = int(os.environ.get("MAILRACE_TEST_STEPS", "3000"))
    seed = int(os.environ.get("MAILRACE_TEST_SEED", "0"))
    for life in range(steps // LIFE_STEPS):
        try:
            live(seed + life, LIFE_STEPS)
        except BaseException as error:
            error.add_note(f"live({seed + life}, {LIFE_STEPS})")
            raise
