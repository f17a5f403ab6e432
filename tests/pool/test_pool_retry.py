"""A pool runs failed jobs again: when, how often, and what that costs the others."""

import asyncio
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailrace.errors import RejectedError
from mailrace.pool import (
    Backoff,
    BreakerSettings,
    JobState,
    Pool,
    PoolFullError,
    Reason,
    RetryBudget,
    RetryLaterError,
    RetryPolicy,
    RetrySchedule,
)
from tests.support.clock import VirtualClock, settle

_NOON_S = 1_800_000_000.0
PLAIN = RetryPolicy(delays=Backoff(attempts=4, first_s=1, factor=2, cap_s=3, jitter="none"))


class Flaky:
    """Fails a number of times, and notes when it was called."""

    def __init__(self, clock: VirtualClock, failures: int, error: Exception | None = None) -> None:
        self.clock = clock
        self.failures = failures
        self.error = error or OSError("down")
        self.starts_s: list[float] = []

    async def call(self) -> str:
        self.starts_s.append(self.clock.monotonic_s())
        if len(self.starts_s) <= self.failures:
            raise self.error
        return "done"


async def test_delays_grow_up_to_their_cap() -> None:
    clock = VirtualClock(auto=True)
    far = Flaky(clock, failures=3)
    async with Pool(clock=clock, workers=1) as pool:
        job = await pool.options(retry=PLAIN).submit(far.call)
        assert await job == "done"
        assert job.attempts == 4
        assert pool.numbers().retries == 3
    assert far.starts_s == [0, 1, 3, 6]


async def test_a_list_of_delays_is_kept_to_and_then_the_job_has_failed() -> None:
    clock = VirtualClock(auto=True)
    far = Flaky(clock, failures=99)
    policy = RetryPolicy(delays=RetrySchedule((5.0, 15.0, 45.0)))
    async with Pool(clock=clock, workers=1) as pool:
        job = await pool.options(retry=policy).submit(far.call)
        outcome = await job.outcome()
        assert (outcome.state, outcome.reason) == (JobState.FAILED, Reason.ATTEMPTS)
        assert outcome.error is far.error
        assert outcome.attempts == 4
    assert far.starts_s == [0, 5, 20, 65]


@given(seed=st.integers(0, 2**32), attempts=st.integers(1, 6), cap_s=st.floats(0.5, 50))
@settings(max_examples=30, deadline=None)
async def test_jitter_fills_each_delay_and_never_exceeds_it(
    seed: int, attempts: int, cap_s: float
) -> None:
    clock = VirtualClock(auto=True)
    backoff = Backoff(attempts=attempts, first_s=1, factor=3, cap_s=cap_s)
    far = [Flaky(clock, failures=99) for _ in range(20)]
    async with Pool(clock=clock, random=Random(seed), workers=20, queue_size=100) as pool:
        for one in far:
            await pool.options(retry=RetryPolicy(delays=backoff)).submit(one.call)
        await pool.drain()
        assert pool.ledger().failed == 20
    for step in range(attempts - 1):
        longest_s = min(cap_s, 3.0**step)
        gaps_s = [one.starts_s[step + 1] - one.starts_s[step] for one in far]
        assert all(0 <= gap_s <= longest_s + 1e-9 for gap_s in gaps_s)
        assert max(gaps_s) - min(gaps_s) > longest_s / 4
    assert all(len(one.starts_s) == attempts for one in far)


@pytest.mark.parametrize("asked_s", [0.25, 40.0])
async def test_the_delay_that_the_far_side_asks_for_wins(asked_s: float) -> None:
    clock = VirtualClock(auto=True)
    far = Flaky(clock, failures=1, error=RetryLaterError(asked_s))
    async with Pool(clock=clock, workers=1) as pool:
        assert await (await pool.options(retry=PLAIN).submit(far.call)) == "done"
    assert far.starts_s == [0, asked_s]


async def test_an_attribute_retry_after_of_any_error_is_asked_for_as_well() -> None:
    class TooManyRequestsError(Exception):
        retry_after = 7

    clock = VirtualClock(auto=True)
    far = Flaky(clock, failures=1, error=TooManyRequestsError())
    async with Pool(clock=clock, workers=1) as pool:
        await (await pool.options(retry=PLAIN).submit(far.call))
    assert far.starts_s == [0, 7]


async def test_no_attempt_is_promised_for_after_the_deadline() -> None:
    clock = VirtualClock(auto=True)
    far = Flaky(clock, failures=99)
    async with Pool(clock=clock, workers=1) as pool:
        job = await pool.options(retry=PLAIN, deadline=5).submit(far.call)
        outcome = await job.outcome()
        # The fourth attempt would have begun at 6 s: that it will not is known at 3 s.
        assert outcome.reason is Reason.DEADLINE
        assert clock.monotonic_s() == 3
    assert far.starts_s == [0, 1, 3]


async def test_a_retry_that_finds_no_worker_before_the_deadline_expires() -> None:
    clock = VirtualClock(auto=True)
    far = Flaky(clock, failures=1)
    async with Pool(clock=clock, workers=1) as pool:
        job = await pool.options(retry=PLAIN, deadline=5).submit(far.call)
        await settle()
        blocker = await pool.submit(clock.sleep_s, 20)
        outcome = await job.outcome()
        assert (outcome.state, outcome.reason) == (JobState.EXPIRED, Reason.DEADLINE)
        assert clock.monotonic_s() == 5
        assert pool.ledger().balanced
        await blocker
    assert far.starts_s == [0]


@pytest.mark.parametrize("error", [RejectedError("bad password"), KeyError("ours")])
async def test_a_permanent_error_is_not_retried(error: Exception) -> None:
    clock = VirtualClock(auto=True)
    far = Flaky(clock, failures=99, error=error)
    policy = RetryPolicy(never_on=(RejectedError, KeyError))
    async with Pool(clock=clock, workers=1) as pool:
        outcome = await (await pool.options(retry=policy).submit(far.call)).outcome()
        assert outcome.reason is Reason.PERMANENT
        (letter,) = pool.dead_letters
        assert letter.reason is Reason.PERMANENT
        assert letter.error_type == type(error).__name__
    assert far.starts_s == [0]


async def test_without_a_policy_nothing_is_retried() -> None:
    clock = VirtualClock(auto=True)
    far = Flaky(clock, failures=1)
    async with Pool(clock=clock, workers=1) as pool:
        outcome = await (await pool.submit(far.call)).outcome()
        assert (outcome.reason, outcome.attempts) == (Reason.ERROR, 1)


async def test_a_timeout_is_a_failed_attempt_like_any_other() -> None:
    clock = VirtualClock(auto=True)
    starts_s: list[float] = []

    async def slow_first() -> str:
        starts_s.append(clock.monotonic_s())
        await clock.sleep_s(10 if len(starts_s) == 1 else 0)
        return "done"

    async with Pool(clock=clock, workers=1) as pool:
        job = await pool.options(retry=PLAIN, timeout=2).submit(slow_first)
        assert await job == "done"
        assert pool.numbers().timeouts == 1
    assert starts_s == [0, 3]


@given(jobs=st.integers(1, 60), share=st.sampled_from([0.0, 0.1, 0.5]), least=st.integers(0, 3))
@settings(max_examples=25, deadline=None)
async def test_two_pools_spend_one_retry_budget(jobs: int, share: float, least: int) -> None:
    if share == 0 and least == 0:
        return
    clock = VirtualClock(auto=True)
    budget = RetryBudget(share=share, least_per_s=least, window_s=10.0)
    policy = RetryPolicy(delays=RetrySchedule((0.0, 0.0, 0.0)))
    calls = 0

    async def fail() -> None:
        nonlocal calls
        calls += 1
        raise OSError

    async with (
        Pool(clock=clock, workers=3, queue_size=200, retry_budget=budget) as one,
        Pool(clock=clock, workers=3, queue_size=200, retry_budget=budget) as two,
    ):
        for number in range(jobs):
            await (one, two)[number % 2].options(retry=policy).submit(fail)
        await one.drain()
        await two.drain()
        assert clock.monotonic_s() == 0
        retries = one.numbers().retries + two.numbers().retries
        reasons = Counter(letter.reason for pool in (one, two) for letter in pool.dead_letters)
    assert calls == jobs + retries
    assert retries <= share * jobs + least * 10
    # What could be spent is spent, unless every job has had all of its attempts.
    assert retries == 3 * jobs or reasons[Reason.BUDGET] > 0
    assert retries >= min(3 * jobs, least * 10)


async def test_ten_thousand_failing_jobs_finish_at_the_rate_that_is_set() -> None:
    clock = VirtualClock(auto=True)
    failed = Counter[int]()
    policy = RetryPolicy(delays=Backoff(attempts=2, first_s=5.0))

    async def fail_once(number: int) -> None:
        failed[number] += 1
        if failed[number] == 1:
            raise OSError

    async with Pool(clock=clock, workers=10, queue_size=20_000, rate="1000/s") as pool:
        for number in range(10_000):
            await pool.options(retry=policy).submit(fail_once, number)
        await pool.drain()
        assert pool.ledger().completed == 10_000
    assert set(failed.values()) == {2}
    # 20,000 starts at 1,000/s; the schedule keeps back some percent for jitter on the way.
    assert 20 <= clock.monotonic_s() <= 21.5


async def test_no_worker_waits_for_a_retry() -> None:
    clock = VirtualClock()
    policy = RetryPolicy(delays=RetrySchedule((60.0,)))
    async with Pool(clock=clock, workers=1) as pool:
        slow = [
            await pool.options(retry=policy).submit(Flaky(clock, failures=1).call)
            for _ in range(50)
        ]
        await settle()
        numbers = pool.numbers()
        assert (numbers.ledger.delayed, numbers.active, numbers.idle) == (50, 0, 1)
        assert await (await pool.submit(Flaky(clock, failures=0).call)) == "done"
        assert clock.monotonic_s() == 0
        await clock.advance(60)
        assert all(job.done() for job in slow)


async def test_delayed_jobs_count_in_the_bound_and_are_never_refused() -> None:
    clock = VirtualClock()
    policy = RetryPolicy(delays=RetrySchedule((10.0,)))
    flaky = [Flaky(clock, failures=1) for _ in range(3)]
    async with Pool(clock=clock, workers=1, queue_size=3, overflow="refuse") as pool:
        jobs = [await pool.options(retry=policy).submit(one.call) for one in flaky]
        await settle()
        assert pool.ledger().delayed == 3
        with pytest.raises(PoolFullError, match="3 for their next attempt"):
            await pool.submit(asyncio.sleep, 0)
        await clock.advance(10)
        assert [await job for job in jobs] == ["done"] * 3
        assert (await pool.submit(Flaky(clock, failures=0).call)).attempts == 0
        assert pool.ledger().refused == 1


async def test_the_history_tells_every_attempt_with_its_time() -> None:
    clock = VirtualClock(auto=True)
    policy = RetryPolicy(delays=RetrySchedule((10.0, 20.0)))

    async def fail(errors: list[Exception]) -> None:
        await clock.sleep_s(2)
        raise errors.pop()

    async with Pool(clock=clock, workers=1) as pool:
        job = await pool.options(retry=policy).submit(
            fail, [ValueError("c"), OSError("b"), KeyError("a")]
        )
        await job.outcome()
        (letter,) = pool.dead_letters
    told = [
        (attempt.number, attempt.at_unix_s - _NOON_S, attempt.ran_s, attempt.error_type)
        for attempt in letter.attempts
    ]
    assert told == [(1, 2, 2, "KeyError"), (2, 14, 2, "OSError"), (3, 36, 2, "ValueError")]
    assert letter.message == "c"


async def test_a_job_that_waits_for_its_retry_can_be_cancelled() -> None:
    clock = VirtualClock()
    far = Flaky(clock, failures=1)
    async with Pool(clock=clock, workers=1, queue_size=1) as pool:
        job = await pool.options(retry=PLAIN).submit(far.call)
        await settle()
        assert job.state is JobState.RETRYABLE
        waiting = asyncio.create_task(pool.submit(asyncio.sleep, 0))
        await settle()
        assert not waiting.done()
        assert job.cancel()
        outcome = await job.outcome()
        assert (outcome.state, outcome.reason) == (JobState.CANCELLED, Reason.REQUESTED)
        await (await waiting)  # its place is free
        await clock.advance(100)
        assert pool.ledger().balanced
        assert pool.ledger().delayed == 0
    assert far.starts_s == [0]


async def test_a_retry_waits_for_an_open_breaker_and_burns_no_attempt() -> None:
    clock = VirtualClock(auto=True)
    far = Flaky(clock, failures=2)
    breaker = BreakerSettings(failures=2, break_s=100, jitter=0)
    async with Pool(clock=clock, workers=1, breaker=breaker) as pool:
        job = await pool.options(retry=PLAIN).submit(far.call)
        assert await job == "done"
        assert job.attempts == 3
    assert far.starts_s == [0, 1, 101]


async def test_an_error_that_others_raise_as_well_harms_none_of_them() -> None:
    """A lost connection fails all who wait for it with one and the same exception."""
    clock = VirtualClock(auto=True)
    lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    told: list[str] = []

    async def send() -> None:
        await lost

    async def reader() -> None:
        try:
            raise ConnectionError("lost")  # noqa: TRY301 - as a socket would
        except ConnectionError as error:
            lost.set_exception(error)
            await asyncio.sleep(0.01)  # it connects anew while the jobs fail
            told.append("again")

    async def survivor() -> str:
        try:
            await lost
        except ConnectionError:
            await clock.sleep_s(5)
        return "alive"

    async with Pool(clock=clock, workers=4) as pool:
        survives = await pool.submit(survivor)
        jobs = [await pool.submit(send) for _ in range(3)]
        reading = asyncio.create_task(reader())
        for job in jobs:
            assert (await job.outcome()).reason is Reason.ERROR
        assert await survives == "alive"
        await reading
        assert told == ["again"]
        assert await asyncio.gather(*[await pool.submit(asyncio.sleep, 0, n) for n in range(8)])
        assert pool.numbers().idle == 4
