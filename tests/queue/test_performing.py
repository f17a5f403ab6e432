"""Handlers do claimed jobs: every answer, every way to fail, and what follows from it."""

import asyncio
import datetime as dt
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from mailrace.clock import Clock, SystemClock
from mailrace.errors import ConflictError, MisuseError, RejectedError, UnavailableError
from mailrace.pool import Backoff, BreakerSettings, NoLimit, RetryLaterError, RetryPolicy
from mailrace.queue import ClaimedJob, Gate, Result, Step
from mailrace.queue.answers import Cancel, Fail, Retry, SlowDown, Snooze
from mailrace.queue.kinds import Handlers, JobInfo
from mailrace.queue.performing import Performer
from mailrace.queue.sealing import NONCE_BYTES, Sealer
from tests.support.clock import VirtualClock

if TYPE_CHECKING:
    from mailrace.queue.session import Session

KEY = "one:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
OTHER_KEY = "two:OTg3NjU0MzIxMDk4NzY1NDMyMTA5ODc2NTQzMjEwOTg="
GENEROUS_S = 20.0


def job(
    payload: object = None,
    number: int = 1,
    *,
    kind: str = "kind",
    attempt: int = 1,
    attempts: int | None = None,
    once: bool = False,
) -> ClaimedJob:
    raw = payload if isinstance(payload, msgspec.Raw) else msgspec.Raw(msgspec.json.encode(payload))
    return ClaimedJob(
        number, 7, attempt, once, kind, "queue", "tenant", 0, 2, "key", 5, attempts, 99, None, raw
    )


class Departures:
    """In the place of a session: what was noted before the handlers began."""

    def __init__(self) -> None:
        self.noted: list[tuple[int, bool]] = []
        self.fault: Exception | None = None

    def departing(self, job: ClaimedJob, *, once: bool) -> None:
        if self.fault is not None:
            raise self.fault
        self.noted.append((job.id, once))


class Bench:
    def __init__(self, handlers: Handlers, clock: Clock, sealer: Sealer | None) -> None:
        self.departures = Departures()
        self.slowed: list[int] = []
        self.performer = Performer(
            handlers,
            sealer=sealer,
            slow_down=lambda job: self.slowed.append(job.id),
            rng=Random(3),
            clock=clock,
            concurrency=4,
        )

    def gate(self, job: ClaimedJob) -> Gate:
        return Gate(job, NoLimit(), cast("Session", self.departures))

    async def do(self, job: ClaimedJob) -> Result:
        return await self.performer(job, self.gate(job))

    async def do_together(self, *jobs: ClaimedJob) -> list[Result]:
        return await self.performer.together(jobs, [self.gate(job) for job in jobs])


@asynccontextmanager
async def bench_of(
    function: Callable[..., Any],
    *,
    clock: Clock | None = None,
    sealer: Sealer | None = None,
    **choices: Any,
) -> AsyncIterator[Bench]:
    handlers = Handlers()
    handlers.add("kind", function, **choices)
    bench = Bench(handlers, clock or VirtualClock(), sealer)
    async with asyncio.timeout(GENEROUS_S), bench.performer:
        yield bench


async def done(
    function: Callable[..., Any], claimed: ClaimedJob | None = None, **choices: Any
) -> Result:
    async with bench_of(function, **choices) as bench:
        return await bench.do(claimed or job())


# Answers


def answering(answer: object) -> Callable[[Any], Any]:
    async def handler(payload: Any) -> object:
        return answer

    return handler


VALUES: list[tuple[object, bytes]] = [
    (0, b"0"),
    ("", b'""'),
    (False, b"false"),
    ([], b"[]"),
    ({"to": [1, 2]}, b'{"to":[1,2]}'),
    (dt.date(2026, 5, 4), b'"2026-05-04"'),
]


@pytest.mark.parametrize(("value", "kept"), VALUES)
async def test_a_value_is_the_result(value: object, kept: bytes) -> None:
    result = await done(answering(value))
    assert result.step is Step.COMPLETE
    assert result.value is not None
    assert bytes(result.value) == kept


class Circle:
    def __repr__(self) -> str:
        return "Circle()"


@pytest.mark.parametrize(
    "value",
    [
        Circle(),
        {1, Circle()},
        {"a": Circle()},
        "\ud800",
        "x" * 70_000,
        msgspec.Raw(b"no json"),
        msgspec.Raw(b""),
        {"a": msgspec.Raw(b"}")},
    ],
)
async def test_a_value_that_cannot_be_kept_completes_the_job_all_the_same(value: object) -> None:
    result = await done(answering(value))
    assert (result.step, result.value) == (Step.COMPLETE, None)


async def test_a_value_takes_one_line_of_a_journal() -> None:
    result = await done(answering({"body": msgspec.Raw(b'{\n  "a":\n 1}')}))
    assert result.value is None or b"\n" not in bytes(result.value)


async def test_a_value_that_contains_itself_completes_the_job() -> None:
    value: list[object] = []
    value.append(value)
    assert (await done(answering(value))).step is Step.COMPLETE


async def test_nothing_is_done() -> None:
    assert await done(answering(None)) == Result(Step.COMPLETE, "", "")


MINUTE = dt.timedelta(minutes=1)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Retry(7, "later"), Result(Step.RETRY, "later", "later", 7.0, "provider")),
        (
            Retry(MINUTE),
            Result(Step.RETRY, "to be tried again", "to be tried again", 60.0, "provider"),
        ),
        (Retry(), Result(Step.RETRY, "to be tried again", "to be tried again", 300.0, "provider")),
        (Snooze(5), Result(Step.SNOOZE, "", "", 5.0)),
        (Snooze(MINUTE, "night"), Result(Step.SNOOZE, "night", "night", 60.0)),
        (SlowDown(30), Result(Step.SNOOZE, "slow down", "slow down", 30.0, "provider")),
        (Cancel(), Result(Step.CANCEL, "cancelled", "")),
        (Cancel("gone"), Result(Step.CANCEL, "gone", "gone")),
        (Fail(), Result(Step.FAIL, "failed", "", None, "data")),
        (Fail("nobody"), Result(Step.FAIL, "nobody", "nobody", None, "data")),
    ],
)
async def test_an_answer_says_what_follows(answer: object, expected: Result) -> None:
    async with bench_of(answering(answer)) as bench:
        assert await bench.do(job()) == expected
        assert bench.slowed == ([1] if isinstance(answer, SlowDown) else [])


@pytest.mark.parametrize("after", [-1, float("nan"), float("inf"), True, dt.timedelta(seconds=-1)])
@pytest.mark.parametrize("answer", [Retry, Snooze, SlowDown])
async def test_a_time_span_that_is_none_is_the_handlers_failure(
    answer: Callable[[Any], object], after: Any
) -> None:
    async def handler(_: Any) -> object:
        return answer(after)

    result = await done(handler)
    assert (result.step, result.reason, result.category) == (Step.FAIL, "MisuseError", "data")
    assert "after is" in result.detail


# Failures


class QuotaError(Exception):
    retry_after = 42


@pytest.mark.parametrize(
    ("error", "step", "category"),
    [
        (ValueError("bad"), Step.RETRY, "data"),
        (KeyError("name"), Step.RETRY, "data"),
        (TypeError("odd"), Step.RETRY, "data"),
        (MisuseError("wrong"), Step.FAIL, "data"),
        (RejectedError("no"), Step.FAIL, "provider"),
        (QuotaError(), Step.RETRY, "provider"),
        (RetryLaterError(5), Step.RETRY, "provider"),
        (UnavailableError("down"), Step.RETRY, "network"),
        (TimeoutError(), Step.RETRY, "network"),
        (ConnectionResetError("reset"), Step.RETRY, "network"),
        (OSError(28, "no space"), Step.RETRY, "network"),
        (ConflictError("taken"), Step.RETRY, "system"),
        (ZeroDivisionError(), Step.RETRY, "system"),
        (ExceptionGroup("several", [ValueError()]), Step.RETRY, "system"),
    ],
)
async def test_an_error_is_a_failed_attempt_of_its_kind(
    error: Exception, step: Step, category: str
) -> None:
    async def handler(payload: Any) -> None:
        raise error

    result = await done(handler)
    assert (result.step, result.category) == (step, category)
    assert result.reason == type(error).__name__
    assert str(error) in result.detail


async def test_an_error_without_a_text_or_with_too_much_of_it_is_told_all_the_same() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    async def mute(payload: Any) -> None:
        raise MuteError

    async def long(payload: Any) -> None:
        raise ValueError("x" * 1_000_000)

    assert (await done(mute)).step is Step.RETRY
    assert len((await done(long)).detail) <= 2000


async def test_a_cancel_of_the_handlers_own_is_a_failed_attempt() -> None:
    """Something that it waited for was cancelled; nobody cancelled the job."""

    async def handler(payload: Any) -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    result = await done(handler)
    assert (result.step, result.reason, result.category) == (Step.RETRY, "CancelledError", "system")
    assert result.delay_s == 300


async def fails(payload: Any) -> None:
    raise ValueError("bad")


@pytest.mark.parametrize(
    ("retry", "delays_s"),
    [
        (None, [300, 900, 2700, 8100, None]),
        ("none", [None]),
        ("1s,2m", [1, 120, None]),
        (Backoff(attempts=3, first_s=10, jitter="none"), [10, 20, None]),
        (RetryPolicy(delays=Backoff(attempts=9), retry_on=(KeyError,)), [None]),
        (RetryPolicy(delays=Backoff(attempts=9), never_on=(ValueError,)), [None]),
    ],
)
async def test_a_kind_says_when_it_is_tried_again(retry: Any, delays_s: list[float | None]) -> None:
    async with bench_of(fails, retry=retry) as bench:
        results = [await bench.do(job(attempt=number + 1)) for number in range(len(delays_s))]
    assert [result.delay_s for result in results] == delays_s
    assert [result.step for result in results[:-1]] == [Step.RETRY] * (len(delays_s) - 1)
    assert results[-1].step is Step.FAIL


async def test_the_bound_of_a_job_holds_besides_that_of_its_kind() -> None:
    for answer in (fails, answering(Retry()), answering(Retry(1))):
        async with bench_of(answer, retry="1s,1s,1s,1s") as bench:
            assert (await bench.do(job(attempt=1, attempts=2))).step is Step.RETRY
            assert (await bench.do(job(attempt=2, attempts=2))).step is Step.FAIL
            assert (await bench.do(job(attempt=5, attempts=9))).step is Step.FAIL
    # What is put off has not failed, and is no attempt.
    assert (await done(answering(Snooze(1)), job(attempt=2, attempts=2))).step is Step.SNOOZE


async def test_an_error_that_names_a_time_is_tried_again_then() -> None:
    async def handler(payload: Any) -> None:
        raise QuotaError

    assert (await done(handler)).delay_s == 42
    assert (await done(handler, retry="none")).step is Step.FAIL


class BusyError(UnavailableError):
    retry_after = 42


@pytest.mark.parametrize(
    ("error", "retry", "delays_s"),
    [
        (UnavailableError("refused"), None, [0, 900]),
        (TimeoutError(), None, [0, 900]),
        (BusyError("busy"), None, [42, 42]),
        (ValueError("bad"), None, [300, 900]),
        (UnavailableError("refused"), "5m,15m", [300, 900]),
    ],
)
async def test_a_first_failure_to_reach_the_far_side_is_made_up_for_at_once(
    error: Exception, retry: str | None, delays_s: list[float]
) -> None:
    """Unless the kind has delays of its own, or the far side asks for one."""

    async def handler(payload: Any) -> None:
        raise error

    async with bench_of(handler, retry=retry) as bench:
        results = [await bench.do(job(attempt=attempt)) for attempt in (1, 2)]
    assert [result.delay_s for result in results] == delays_s


# What a handler is given


class Invoice(msgspec.Struct):
    number: int
    lines: list[str]


async def test_the_payload_has_the_type_that_the_handler_asks_for() -> None:
    given: list[object] = []

    async def handler(invoice: Invoice) -> None:
        given.append(invoice)

    await done(handler, job({"number": 7, "lines": ["a"]}))
    assert given == [Invoice(7, ["a"])]


@pytest.mark.parametrize(
    "payload", [{"number": "seven", "lines": []}, {"number": 7}, [], None, msgspec.Raw(b"{")]
)
async def test_a_payload_that_does_not_fit_fails_for_good_and_begins_nothing(
    payload: object,
) -> None:
    async def handler(invoice: Invoice) -> None:
        pytest.fail("it was given something else")

    async with bench_of(handler) as bench:
        result = await bench.do(job(payload))
        assert (result.step, result.reason, result.category) == (Step.FAIL, "payload", "data")
        assert bench.departures.noted == []


async def test_a_second_parameter_is_told_of_the_job() -> None:
    infos: list[JobInfo] = []

    async def handler(payload: Any, info: JobInfo) -> None:
        infos.append(info)

    async def with_default(payload: Any, more: int = 5) -> int:
        return more

    await done(handler, job(number=12, attempt=3))
    assert infos == [
        JobInfo(
            id=12, kind="kind", queue="queue", tenant="tenant", key="key", batch_id=5, attempt=3,
            deaths=2, created_ms=99,
        )
    ]  # fmt: skip
    assert (await done(with_default)).value == msgspec.Raw(b"5")


async def test_a_kind_that_nobody_here_knows_is_left_to_others() -> None:
    async with bench_of(answering(None)) as bench:
        result = await bench.do(job(kind="unknown"))
        assert (result.step, result.reason) == (Step.SNOOZE, "no handler")
        assert result.delay_s == 30
        assert bench.departures.noted == []


@pytest.mark.parametrize("once", [False, True])
async def test_a_job_is_noted_before_its_handler_begins(once: bool) -> None:
    async def handler(payload: Any) -> None:
        assert bench.departures.noted == [(1, once)]

    async with bench_of(handler) as bench:
        assert (await bench.do(job(once=once))).step is Step.COMPLETE
        for fault in (ConflictError("the lease has run out"), UnavailableError("disk full")):
            bench.departures.fault = fault
            with pytest.raises(type(fault)):  # it has not begun: no attempt is counted
                await bench.do(job(once=once))


# Sealed payloads


def sealed(payload: object, key: str = KEY, kind: str = "kind") -> msgspec.Raw:
    raw = msgspec.json.encode(payload)
    return msgspec.Raw(
        Sealer.parse(key).seal(raw, about=kind.encode(), nonce=os.urandom(NONCE_BYTES))
    )


async def echo(payload: dict[str, int]) -> dict[str, int]:
    return payload


async def test_a_sealed_payload_is_opened() -> None:
    result = await done(echo, job(sealed({"a": 1})), sealer=Sealer.parse(f"{OTHER_KEY},{KEY}"))
    assert result.value == msgspec.Raw(b'{"a":1}')
    plain = await done(echo, job({"a": 2}), sealer=Sealer.parse(KEY))
    assert plain.value == msgspec.Raw(b'{"a":2}')


async def test_one_whose_key_is_missing_here_is_left_to_others() -> None:
    result = await done(echo, job(sealed({"a": 1})), sealer=Sealer.parse(OTHER_KEY))
    assert (result.step, result.reason, result.category) == (Step.SNOOZE, "sealed", "system")


async def test_one_that_a_worker_without_keys_claims_is_left_to_others() -> None:
    """It does not fail, and no handler sees the box in place of the payload."""

    async def handler(payload: Any) -> None:
        pytest.fail(f"it was given {payload}")

    result = await done(handler, job(sealed({"a": 1})))
    assert (result.step, result.reason) == (Step.SNOOZE, "sealed")


async def test_one_that_was_tampered_with_fails_for_good() -> None:
    box = bytearray(bytes(sealed({"a": 1})))
    box[-5] ^= 1
    tampered = await done(echo, job(msgspec.Raw(bytes(box))), sealer=Sealer.parse(KEY))
    assert (tampered.step, tampered.reason) == (Step.FAIL, "payload")
    moved = await done(echo, job(sealed({"a": 1}, kind="other")), sealer=Sealer.parse(KEY))
    assert (moved.step, moved.reason) == (Step.FAIL, "payload")


# Chunks


async def test_a_chunk_gives_each_job_its_own_outcome() -> None:
    async def handler(payloads: list[int]) -> list[object]:
        assert payloads == [0, 1, 2, 3, 4]
        return [None, "kept", ValueError("one of them"), Retry(3), Fail("nobody")]

    async with bench_of(handler, chunk=10) as bench:
        results = await bench.do_together(*(job(number, number + 1) for number in range(5)))
    assert [result.step for result in results] == [
        Step.COMPLETE, Step.COMPLETE, Step.RETRY, Step.RETRY, Step.FAIL,
    ]  # fmt: skip
    assert results[1].value == msgspec.Raw(b'"kept"')
    assert results[2].reason == "ValueError"
    assert results[3].delay_s == 3


async def test_one_bad_payload_costs_the_others_of_a_chunk_nothing() -> None:
    given: list[list[int]] = []

    async def handler(payloads: list[int], infos: list[JobInfo]) -> list[int]:
        given.append(payloads)
        assert [info.id for info in infos] == [1, 3]
        return [10 * payload for payload in payloads]

    async with bench_of(handler, chunk=10) as bench:
        results = await bench.do_together(job(1, 1), job("two", 2), job(3, 3))
        assert bench.departures.noted == [(1, False), (3, False)]
        none = await bench.do_together(job("a", 1), job("b", 2))
    assert [result.step for result in results] == [Step.COMPLETE, Step.FAIL, Step.COMPLETE]
    assert [result.value for result in results] == [msgspec.Raw(b"10"), None, msgspec.Raw(b"30")]
    assert {result.reason for result in none} == {"payload"}
    assert given == [[1, 3]]


@pytest.mark.parametrize("answer", [None, [], [1], [1, 2, 3], "ab", {1: 1, 2: 2}, 5])
async def test_a_chunk_that_does_not_answer_one_by_one_has_failed(answer: object) -> None:
    async def handler(payloads: list[Any]) -> object:
        return answer

    async with bench_of(handler, chunk=10) as bench:
        results = await bench.do_together(job(1, 1), job(2, 2))
    assert {result.step for result in results} == {Step.FAIL}
    assert {result.reason for result in results} == {"MisuseError"}
    assert "given 2 jobs" in results[0].detail


async def test_a_chunk_that_raises_is_a_failed_attempt_of_each_with_its_own_retry() -> None:
    async def handler(payloads: list[Any]) -> list[object]:
        raise TimeoutError

    async with bench_of(handler, chunk=10, retry="1s,5s") as bench:
        results = await bench.do_together(job(1, 1), job(2, 2, attempt=2), job(3, 3, attempt=3))
    assert [result.delay_s for result in results] == [1, 5, None]
    assert [result.step for result in results] == [Step.RETRY, Step.RETRY, Step.FAIL]


async def test_a_chunk_whose_own_future_was_cancelled_has_failed() -> None:
    async def handler(payloads: list[Any]) -> list[object]:
        raise asyncio.CancelledError

    async with bench_of(handler, chunk=10) as bench:
        results = await bench.do_together(job(1, 1), job(2, 2))
    assert {result.step for result in results} == {Step.RETRY}


async def test_an_ordinary_function_may_take_chunks() -> None:
    def handler(payloads: Sequence[int]) -> list[int]:
        assert threading.current_thread() is not threading.main_thread()
        return [payload + 1 for payload in payloads]

    async with bench_of(handler, chunk=10, clock=SystemClock()) as bench:
        results = await bench.do_together(job(1, 1), job(2, 2))
    assert [result.value for result in results] == [msgspec.Raw(b"2"), msgspec.Raw(b"3")]


# Threads and processes


def in_a_process(payload: str) -> object:
    if payload == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if payload == "fail":
        raise ValueError("bad")
    if payload == "hang":
        time.sleep(60)
    return os.getpid()


@pytest.mark.parametrize("once", [False, True])
async def test_a_handler_in_a_process_returns_fails_and_dies(once: bool) -> None:
    async with bench_of(in_a_process, where="process", clock=SystemClock()) as bench:
        done, failed, died = [
            await bench.do(job(word, once=once)) for word in ("ok", "fail", "die")
        ]
        again = await bench.do(job("ok"))
    assert done.step is again.step is Step.COMPLETE
    assert done.value is not None
    assert int(bytes(done.value)) != os.getpid()
    assert (failed.step, failed.reason) == (Step.RETRY, "ValueError")
    # Nobody knows what it did before it died: what is done at most once is not done again.
    assert died.step is (Step.LOSE if once else Step.RETRY)
    assert died.reason == "ProcessDiedError"


@pytest.mark.parametrize("where", ["loop", "thread", "process"])
@pytest.mark.parametrize("once", [False, True])
async def test_an_attempt_that_takes_too_long_has_failed_or_is_uncertain(
    where: str, once: bool
) -> None:
    over = threading.Event()

    async def on_the_loop(payload: Any) -> None:
        await asyncio.Event().wait()

    def in_a_thread(payload: Any) -> None:
        over.wait(GENEROUS_S)

    function = {"loop": on_the_loop, "thread": in_a_thread, "process": in_a_process}[where]
    try:
        async with bench_of(
            function, where=where, timeout=0.3, retry="5m", clock=SystemClock()
        ) as bench:
            result = await bench.do(job("hang", once=once))
            assert result.category == "network"
            if once:
                assert (result.step, result.reason) == (Step.LOSE, "timed out")
            else:
                assert (result.step, result.delay_s) == (Step.RETRY, 300)
            over.set()
    finally:
        over.set()


async def test_in_time_is_in_time() -> None:
    async def handler(payload: Any) -> str:
        await asyncio.sleep(0)
        return "ok"

    result = await done(handler, timeout=GENEROUS_S)
    assert result.value == msgspec.Raw(b'"ok"')


async def test_threads_are_as_many_as_there_are_attempts() -> None:
    began_s = time.monotonic()
    together = threading.Barrier(4)

    def handler(payload: Any) -> None:
        together.wait(GENEROUS_S)

    async with bench_of(handler, clock=SystemClock()) as bench:
        results = await asyncio.gather(*(bench.do(job(None, number)) for number in range(1, 5)))
    assert {result.step for result in results} == {Step.COMPLETE}
    assert time.monotonic() - began_s < 5


# Breakers


BREAKER = BreakerSettings(failures=3, break_s=10, growth=1, jitter=0)


@pytest.mark.parametrize("chunk", [None, 10])
async def test_a_breaker_puts_jobs_off_probes_and_closes(chunk: int | None) -> None:
    clock, ends, calls = VirtualClock(), [UnavailableError("down")] * 3, [0]

    async def handler(payload: Any) -> Any:
        calls[0] += 1
        if ends:
            raise ends.pop()
        return [None] * len(payload) if chunk else None

    async with bench_of(handler, clock=clock, breaker=BREAKER, chunk=chunk) as bench:

        async def attempt() -> Result:
            if chunk is None:
                return await bench.do(job())
            return (await bench.do_together(job()))[0]

        assert [(await attempt()).step for _ in range(3)] == [Step.RETRY] * 3
        assert bench.performer.breakers_open() == ("kind",)
        noted = len(bench.departures.noted)
        put_off = [await attempt() for _ in range(20)]
        assert {(result.step, result.reason) for result in put_off} == {
            (Step.SNOOZE, "breaker open")
        }
        waits_s = [result.delay_s or 0 for result in put_off]
        assert all(10 <= wait_s <= 11 for wait_s in waits_s)
        assert len(set(waits_s)) == 20  # or all would come back in one moment
        assert (calls, len(bench.departures.noted)) == ([3], noted)
        clock.move_to(10.5)
        ends.append(UnavailableError("still down"))
        assert (await attempt()).step is Step.RETRY  # the probe
        assert (await attempt()).step is Step.SNOOZE
        clock.move_to(25)
        assert (await attempt()).step is Step.COMPLETE
        assert bench.performer.breakers_open() == ()
        assert (await attempt()).step is Step.COMPLETE


async def test_while_a_probe_is_out_the_others_wait() -> None:
    clock, go_on = VirtualClock(), asyncio.Event()
    failing = [True]

    async def handler(payload: Any) -> None:
        if failing[0]:
            raise ConnectionRefusedError
        await go_on.wait()

    async with bench_of(handler, clock=clock, breaker=BREAKER) as bench:
        for _ in range(3):
            await bench.do(job())
        failing[0] = False
        clock.move_to(11)
        probe = asyncio.create_task(bench.do(job(number=1)))
        await asyncio.sleep(0)
        assert (await bench.do(job(number=2))).step is Step.SNOOZE
        go_on.set()
        assert (await probe).step is Step.COMPLETE
        assert (await bench.do(job(number=2))).step is Step.COMPLETE


async def test_a_probe_that_is_cancelled_gives_its_place_back() -> None:
    clock, failing = VirtualClock(), [True]

    async def handler(payload: Any) -> None:
        if failing[0]:
            raise ConnectionRefusedError
        await asyncio.Event().wait()

    async with bench_of(handler, clock=clock, breaker=BREAKER) as bench:
        for _ in range(3):
            await bench.do(job())
        failing[0] = False
        clock.move_to(11)
        for _ in range(3):
            probe = asyncio.create_task(bench.do(job()))
            await asyncio.sleep(0)
            probe.cancel()
            with pytest.raises(asyncio.CancelledError):
                await probe
        assert len(bench.departures.noted) == 6


async def test_a_chunk_of_which_one_was_taken_says_that_the_far_side_is_well() -> None:
    taken = [True]

    async def handler(payloads: list[Any]) -> list[object]:
        return [None if taken[0] else OSError("refused"), *[OSError("down")] * (len(payloads) - 1)]

    async with bench_of(handler, breaker=BREAKER, chunk=10) as bench:
        for _ in range(10):
            await bench.do_together(job(number=1), job(number=2), job(number=3))
        assert bench.performer.breakers_open() == ()
        taken[0] = False
        for _ in range(3):
            await bench.do_together(job(number=1), job(number=2), job(number=3))
        assert bench.performer.breakers_open() == ("kind",)


async def test_what_is_wrong_with_the_data_does_not_open_a_breaker_and_a_reset_closes_it() -> None:
    error: list[Exception] = [ValueError("bad")]

    async def handler(payload: Any) -> None:
        raise error[0]

    async with bench_of(handler, breaker=BREAKER) as bench:
        for _ in range(10):
            await bench.do(job())
        assert bench.performer.breakers_open() == ()
        error[0] = OSError("unreachable")
        for _ in range(3):
            await bench.do(job())
        assert bench.performer.breakers_open() == ("kind",)
        bench.performer.reset_breakers()
        assert bench.performer.breakers_open() == ()
        assert (await bench.do(job())).step is Step.RETRY


# At most once


async def test_kinds_that_are_done_at_most_once_are_told_to_the_claim() -> None:
    handlers = Handlers()
    handlers.add("pay", fails, at_most_once=True)
    handlers.add("mail", fails)
    assert Bench(handlers, VirtualClock(), None).performer.once == ["pay"]


async def test_a_job_that_is_done_at_most_once_may_say_that_it_failed() -> None:
    """Raising is a result; only silence is none."""
    assert (await done(fails, job(once=True))).step is Step.RETRY
    assert (await done(answering(Retry(1)), job(once=True))).step is Step.RETRY
