"""Has a program's handlers do claimed jobs: payload in, answer out, nothing raised."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import Any, Final, Self, TypeVar

import msgspec

from mailrace.clock import Clock
from mailrace.errors import MailraceError, MisuseError, RejectedError, UnavailableError
from mailrace.pool import BreakerState, Pool
from mailrace.pool.breaker import Breaker
from mailrace.pool.driving import is_cancelled
from mailrace.pool.retry import GiveUp
from mailrace.queue.answers import ANSWERS, Answer, Cancel, Fail, Retry, SlowDown, Snooze, wait_s
from mailrace.queue.attempts import Gate, Result
from mailrace.queue.faults import category_of, is_out_of_reach, tells_nothing, text_of
from mailrace.queue.jobs import ClaimedJob
from mailrace.queue.kinds import Handlers, JobInfo, Kind
from mailrace.queue.sealing import Sealer, looks_sealed
from mailrace.queue.states import Step

_T = TypeVar("_T")
# What a worker that does not know a kind leaves to those that do.
_UNKNOWN_S: Final = 30.0
# Results beyond this are not for a queue to keep.
_RESULT_BYTES_MAX: Final = 64 * 1024
_DETAIL_MAX: Final = 2000
_REASON_MAX: Final = 500
_DONE: Final = Result(Step.COMPLETE, "", "")
# Errors of these categories say something of the far side, and so count for a breaker.
_FAR_SIDE: Final = frozenset({"network", "provider", "system"})


class Performer:
    """Turns the answers of handlers into results; a `Handler` and a `Chunks` for `Workers`.

    Args:
        sealer: Opens sealed payloads; `None`: there are none.
        slow_down: Told the job whose far side said to slow down.
        rng: The jitter of retries.
    """

    def __init__(
        self,
        handlers: Handlers,
        *,
        sealer: Sealer | None,
        slow_down: Callable[[ClaimedJob], object],
        rng: Random,
        clock: Clock,
        concurrency: int,
    ) -> None:
        self._kinds = {kind.name: kind for kind in handlers}
        self._sealer = sealer
        self._slow_down = slow_down
        self._rng = rng
        self._clock = clock
        self._breakers = {
            kind.name: Breaker(kind.breaker) for kind in handlers if kind.breaker is not None
        }
        # For functions that must not run on the loop: as wide as there are attempts.
        self._offload = None
        if any(kind.where != "loop" for kind in handlers):
            self._offload = Pool(
                workers=concurrency,
                queue_size=concurrency,
                dead_letters=0,
                metrics=False,
                name="handlers",
                clock=clock,
            )
        self.sizes: Mapping[str, int] = {
            kind.name: kind.chunk for kind in handlers if kind.chunk is not None
        }

    async def __aenter__(self) -> Self:
        if self._offload is not None:
            await self._offload.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._offload is not None:
            await self._offload.close(0)

    def breakers_open(self) -> tuple[str, ...]:
        """Kinds that are not tried at present."""
        now_s = self._clock.monotonic_s()
        return tuple(
            name
            for name, breaker in self._breakers.items()
            if breaker.state_at(now_s) is not BreakerState.CLOSED
        )

    def reset_breakers(self) -> None:
        for breaker in self._breakers.values():
            breaker.reset()

    @property
    def once(self) -> list[str]:
        """Kinds that are done at most once."""
        return [kind.name for kind in self._kinds.values() if kind.at_most_once]

    async def __call__(self, job: ClaimedJob, gate: Gate) -> Result:
        kind = self._kinds.get(job.kind)
        if kind is None:
            return _unknown(job)
        try:
            payload = self._payload(kind, job)
        except (RejectedError, UnavailableError, MisuseError) as error:
            return _unreadable(error)
        breaker = self._breakers.get(kind.name)
        if breaker is None:
            return await self._perform(kind, job, gate, payload)
        wait_s = breaker.wait_s(self._clock.monotonic_s())
        if wait_s > 0:
            return self._put_off(wait_s)
        return await self._behind(breaker, self._perform(kind, job, gate, payload), _is_well)

    async def _perform(self, kind: Kind, job: ClaimedJob, gate: Gate, payload: Any) -> Result:
        gate.start()
        try:
            if kind.plain:
                value = await kind.function(payload)
            else:
                arguments = (payload, _info(job)) if kind.wants_info else (payload,)
                value = await self._run(kind, arguments)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                raise
            return self._failed(kind, job, error)  # raising is a failed attempt, whatever it is
        return _DONE if value is None else self._answered(kind, job, value)

    async def _behind(
        self, breaker: Breaker, attempt: Awaitable[_T], is_well: Callable[[_T], bool]
    ) -> _T:
        """An attempt that a breaker lets through, and whose end it is told."""
        ticket = breaker.enter(self._clock.monotonic_s())
        try:
            found = await attempt
        except BaseException:
            breaker.released(ticket)
            raise
        now_s = self._clock.monotonic_s()
        if is_well(found):
            breaker.succeeded(ticket, now_s)
        else:
            breaker.failed(ticket, now_s, self._rng.random())
        return found

    def _put_off(self, wait_s: float) -> Result:
        wait_s += self._rng.random()  # or all of them would come back in the same moment
        return Result(Step.SNOOZE, "breaker open", "the kind is not tried for now", wait_s)

    async def together(self, jobs: Sequence[ClaimedJob], gates: Sequence[Gate]) -> list[Result]:
        kind = self._kinds[jobs[0].kind]
        breaker = self._breakers.get(kind.name)
        wait_s = 0.0 if breaker is None else breaker.wait_s(self._clock.monotonic_s())
        if wait_s > 0:
            return [self._put_off(wait_s) for _ in jobs]
        try:
            given, results = self._begin_chunk(kind, gates)
        except BaseException:
            for gate in gates:  # the handler is not called, and none of them has gone out
                gate.retract()
            raise
        if given:
            attempt = self._chunk(kind, given)
            if breaker is not None:
                attempt = self._behind(breaker, attempt, _is_one_well)
            results |= await attempt
        return [results[job.id] for job in jobs]

    def _begin_chunk(
        self, kind: Kind, gates: Sequence[Gate]
    ) -> tuple[list[tuple[ClaimedJob, Any]], dict[int, Result]]:
        """The payloads of the jobs that begin now, and the results of those that cannot."""
        given: list[tuple[ClaimedJob, Any]] = []
        results: dict[int, Result] = {}
        for gate in gates:
            job = gate.job
            try:
                given.append((job, self._payload(kind, job)))
            except (RejectedError, UnavailableError, MisuseError) as error:
                results[job.id] = _unreadable(error)
                continue
            gate.start()
        return given, results

    async def _chunk(self, kind: Kind, given: list[tuple[ClaimedJob, Any]]) -> dict[int, Result]:
        payloads = [payload for _, payload in given]
        arguments: tuple[Any, ...] = (payloads,)
        if kind.wants_info:
            arguments = payloads, [_info(job) for job, _ in given]
        try:
            answers = await self._run(kind, arguments)
            _check_answers(kind, answers, len(given))
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                raise
            return {job.id: self._failed(kind, job, error) for job, _ in given}
        return {
            job.id: self._settled(kind, job, answer)
            for (job, _), answer in zip(given, answers, strict=True)
        }

    def _settled(self, kind: Kind, job: ClaimedJob, answer: object) -> Result:
        """One of a chunk's answers; an exception in the list is that job's failure."""
        if isinstance(answer, Exception):
            return self._failed(kind, job, answer)
        return _DONE if answer is None else self._answered(kind, job, answer)

    async def _run(self, kind: Kind, arguments: tuple[Any, ...]) -> Any:
        """Where it belongs, and not for longer than it may."""
        if kind.where == "loop":
            async with asyncio.timeout(kind.timeout_s):
                value = kind.function(*arguments)
                return await value if inspect.isawaitable(value) else value
        assert self._offload is not None
        options = self._offload.options(kind=kind.where, timeout=kind.timeout_s, name=kind.name)
        job = await options.submit(kind.function, *arguments)
        try:
            return await job
        except asyncio.CancelledError:
            job.cancel()
            raise

    def _payload(self, kind: Kind, job: ClaimedJob) -> Any:
        raw = job.payload
        if self._sealer is not None:
            return kind.payload.decode(self._sealer.open(bytes(raw), about=kind.name.encode()))
        if looks_sealed(bytes(raw)):
            raise UnavailableError("the payload is sealed, and this worker has no keys")
        return kind.payload.decode(raw)

    def _answered(self, kind: Kind, job: ClaimedJob, value: object) -> Result:
        if not isinstance(value, ANSWERS):
            return Result(Step.COMPLETE, "", "", value=_kept(value))
        try:
            return self._followed(kind, job, value)
        except (MisuseError, AttributeError, TypeError, ValueError) as error:
            # A time span that is none, or a reason that is no text.
            return self._failed(kind, job, error)

    def _followed(self, kind: Kind, job: ClaimedJob, answer: Answer) -> Result:
        """What follows from an answer that is no value."""
        reason, detail = _reason(answer)
        match answer:
            case Retry():
                return self._retry(kind, job, answer)
            case Snooze():
                return Result(Step.SNOOZE, reason, detail, self._wait_s(answer))
            case SlowDown():
                self._slow_down(job)
                return Result(Step.SNOOZE, reason, detail, self._wait_s(answer), "provider")
            case Cancel():
                return Result(Step.CANCEL, reason or "cancelled", detail)
            case Fail():
                return Result(Step.FAIL, reason or "failed", detail, category="data")

    def _wait_s(self, answer: Retry | Snooze | SlowDown) -> float | None:
        return wait_s(answer, self._clock.unix_s())

    def _retry(self, kind: Kind, job: ClaimedJob, answer: Retry) -> Result:
        reason, detail = _reason(answer, otherwise="to be tried again")
        delay_s = kind.retry.delays.delay_s(job.attempt, self._rng.random())
        asked_s = self._wait_s(answer)
        if asked_s is not None and delay_s is not None:
            delay_s = asked_s
        if delay_s is None or not _may_try_again(job):
            return Result(Step.FAIL, reason, detail, category="provider")
        return Result(Step.RETRY, reason, detail, delay_s, "provider")

    def _failed(self, kind: Kind, job: ClaimedJob, error: BaseException) -> Result:
        reason = type(error).__name__
        detail = f"{reason}: {text_of(error)}"[:_DETAIL_MAX]
        category = category_of(error)
        if job.once and tells_nothing(kind, error):
            timed_out = isinstance(error, TimeoutError)
            return Result(Step.LOSE, "timed out" if timed_out else reason, detail, None, category)
        if not isinstance(error, Exception):  # it ended itself, which no policy speaks of
            error = RuntimeError(reason)
        decision = kind.retry.decide(
            job.attempt,
            error,
            now_s=0.0,
            deadline_s=None,
            chance=self._rng.random(),
            budget=None,
        )
        if isinstance(decision, GiveUp) or not _may_try_again(job):
            return Result(Step.FAIL, reason, detail, category=category)
        at_once = kind.at_once and job.attempt == 1 and is_out_of_reach(kind, error)
        return Result(Step.RETRY, reason, detail, 0.0 if at_once else decision.at_s, category)


def _is_well(result: Result) -> bool:
    return result.category not in _FAR_SIDE


def _is_one_well(results: Mapping[int, Result]) -> bool:
    """The far side is well if it took one of them."""
    return any(_is_well(result) for result in results.values())


def _reason(answer: Answer, *, otherwise: str = "") -> tuple[str, str]:
    """What an answer is grouped by, and all that it says, both of bounded length."""
    reason = answer.reason or otherwise
    return reason[:_REASON_MAX], reason[:_DETAIL_MAX]


def _check_answers(kind: Kind, answers: object, jobs: int) -> None:
    if not isinstance(answers, list | tuple) or len(answers) != jobs:
        raise MisuseError(
            f"the handler of {kind.name!r} was given {jobs} jobs and did not return a list of as"
            " many answers",
            hint="return one answer for each, None for done",
        )


def _may_try_again(job: ClaimedJob) -> bool:
    """Whether the job's own bound allows one more attempt; its kind has bounds of its own."""
    return job.attempts is None or job.attempt < job.attempts


def _kept(value: object) -> msgspec.Raw | None:
    """A handler's value as JSON, or nothing where that cannot be or is too much."""
    try:
        # Formatted, as a `Raw` somewhere in it may be anything, also several lines or no JSON.
        encoded = msgspec.json.format(msgspec.json.encode(value), indent=-1)
        encoded.decode()  # what stands in quotes is not looked at by the formatting
    except (TypeError, ValueError, msgspec.MsgspecError, RecursionError):
        return None
    return msgspec.Raw(encoded) if len(encoded) <= _RESULT_BYTES_MAX else None


def _unknown(job: ClaimedJob) -> Result:
    return Result(
        Step.SNOOZE, "no handler", f"this worker has no handler for {job.kind!r}", _UNKNOWN_S
    )


def _unreadable(error: MailraceError) -> Result:
    if isinstance(error, UnavailableError):  # the key is missing here, and may be there
        return Result(Step.SNOOZE, "sealed", str(error), _UNKNOWN_S, "system")
    return Result(Step.FAIL, "payload", str(error)[:_DETAIL_MAX], category="data")


def _info(job: ClaimedJob) -> JobInfo:
    return JobInfo(
        id=job.id,
        kind=job.kind,
        queue=job.queue,
        tenant=job.tenant,
        key=job.key,
        batch_id=job.batch_id,
        attempt=job.attempt,
        deaths=job.deaths,
        created_ms=job.created_ms,
    )
