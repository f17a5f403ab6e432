"""The workers of a run: each does one attempt after the other and reports what came of it."""

import asyncio
import contextlib
import traceback
from dataclasses import dataclass, field

from mailrace.clock import Clock
from mailrace.errors import ConflictError, MailraceError, RejectedError, UnavailableError
from mailrace.events import Events
from mailrace.pool import Limiter, RetrySchedule
from mailrace.queue.attempts import Gate, Handler, Result, finished, released
from mailrace.queue.feed import Feed
from mailrace.queue.finisher import Finisher
from mailrace.queue.jobs import ClaimedJob, Finished
from mailrace.queue.session import Session
from mailrace.queue.states import JobState, Step

# A worker whose far side cannot be reached pauses so long, doubling up to a minute.
_PAUSE_S = 1.0
_PAUSE_MAX_S = 60.0
# A job over which the conversation broke so often is retried on its own schedule.
_BREAKS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempted:
    """An attempt that ended, for whoever follows a run."""

    job: ClaimedJob
    result: Result
    record: Finished
    worker: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Troubled:
    """A worker could not reach the far side, or was refused by it; its job went back."""

    error: MailraceError
    worker: int


@dataclass(slots=True)
class Tally:
    """What the workers are doing and have done, in plain numbers.

    Attributes:
        in_hand: Attempts under way.
        paused: Workers that wait before they try to reach the far side again.
        trouble: What is in the way now, if anything.
        troubles: How often in a row the far side could not be reached.
        rejected: The trouble is such that only a person can mend it.
        ended: Attempts that ended, by the state they led to.
    """

    in_hand: int = 0
    paused: int = 0
    trouble: MailraceError | None = None
    troubles: int = 0
    rejected: bool = False
    ended: dict[JobState, int] = field(default_factory=lambda: dict.fromkeys(JobState, 0))


class Workers:
    """Takes jobs from the feed, runs the handler, and notes the results.

    A fault in a handler costs its own job an attempt and touches no other.
    """

    def __init__(
        self,
        *,
        feed: Feed,
        handler: Handler,
        limiter: Limiter,
        finisher: Finisher,
        retry: RetrySchedule,
        clock: Clock,
        stopping: asyncio.Event,
        wake: asyncio.Event,
        events: Events,
    ) -> None:
        self._feed = feed
        self._handler = handler
        self._limiter = limiter
        self._finisher = finisher
        self._retry = retry
        self._clock = clock
        self._stopping = stopping
        self._wake = wake
        self._events = events
        self._under_way: dict[int, tuple[asyncio.Task[object], Gate]] = {}
        self._broken: dict[int, int] = {}
        self.session: Session | None = None
        self.tally = Tally()

    async def work(self, number: int) -> None:
        """One worker: strictly one attempt at a time, until the feed closes."""
        pause_s = _PAUSE_S
        while (job := await self._feed.take()) is not None:
            if await self._attempt(job, number):
                pause_s = _PAUSE_S
            else:
                await self._sit_out(pause_s)
                pause_s = min(_PAUSE_MAX_S, pause_s * 2)

    @property
    def committed(self) -> int:
        """Attempts that the far side may have by now."""
        return sum(gate.committed for _, gate in self._under_way.values())

    def recall(self) -> None:
        """Ends the workers whose attempt is not committed; their jobs go back to the feed."""
        for task, gate in tuple(self._under_way.values()):
            if not gate.committed:
                task.cancel()

    async def _attempt(self, job: ClaimedJob, number: int) -> bool:
        """Runs the handler once; false when the far side cannot be reached."""
        session = self.session
        if session is None or not session.alive:
            return True  # the lease is gone, and with it the job
        self.tally.in_hand += 1
        try:
            return await self._handle(session, job, number)
        finally:
            self.tally.in_hand -= 1
            self._under_way.pop(number, None)

    async def _handle(self, session: Session, job: ClaimedJob, number: int) -> bool:
        gate = Gate(job, self._limiter, session)
        task = asyncio.current_task()
        assert task is not None
        self._under_way[number] = task, gate
        try:
            result = await self._handler(job, gate)
            record = self._record(job, result)
        except (UnavailableError, RejectedError) as error:
            self._events.emit(Troubled(error=error, worker=number))
            if not self._is_to_blame(job, gate):
                self._hand_back(session, job, error, committed=gate.committed)
                return False
            result = Result(Step.RETRY, "connection lost", str(error))
            record = self._record(job, result)
        except asyncio.CancelledError as error:
            if _is_cancelled():
                self._abandon(session, job, number, committed=gate.committed)
                raise
            result = _fault(error, committed=gate.committed)  # something of the handler's own
            record = self._record(job, result)
        except Exception as error:  # noqa: BLE001 - any fault of a handler is its job's outcome
            if isinstance(error, ConflictError) and not session.alive:
                return True  # the lease ran out on the way; whoever has it now goes on
            result = _fault(error, committed=gate.committed)
            record = self._record(job, result)
        else:
            self.tally.trouble = None
            self.tally.troubles = 0
        self._finish(session, job, result, record, number)
        return True

    def _is_to_blame(self, job: ClaimedJob, gate: Gate) -> bool:
        """Whether the conversation broke too often over this very job."""
        if not gate.permitted:
            return False
        broken = self._broken[job.id] = self._broken.get(job.id, 0) + 1
        if broken < _BREAKS:
            return False
        del self._broken[job.id]
        return True

    def _hand_back(
        self, session: Session, job: ClaimedJob, error: MailraceError, *, committed: bool
    ) -> None:
        self.tally.trouble = error
        self.tally.troubles += 1
        self.tally.rejected = self.tally.rejected or isinstance(error, RejectedError)
        if committed:  # the journal says that it went out, and the handler that nothing was done
            with contextlib.suppress(UnavailableError):
                session.journal.finished(released(job, self._now_ms()))
        self._put_back(session, job)

    def _abandon(self, session: Session, job: ClaimedJob, number: int, *, committed: bool) -> None:
        if committed:
            lost = Result(Step.LOSE, "no reply", "stopped before a reply was seen")
            self._finish(session, job, lost, self._record(job, lost), number)
        else:
            self._put_back(session, job)

    def _put_back(self, session: Session, job: ClaimedJob) -> None:
        if session.alive:  # or the job would go out under a lease that is not its own
            self._feed.give_back(job)

    def _record(self, job: ClaimedJob, result: Result) -> Finished:
        return finished(job, result, self._retry, self._now_ms())

    def _now_ms(self) -> int:
        return int(self._clock.unix_s() * 1000)

    def _finish(
        self, session: Session, job: ClaimedJob, result: Result, record: Finished, number: int
    ) -> None:
        try:
            session.journal.finished(record)
        except UnavailableError as error:  # the store is told all the same
            self.tally.trouble = error
        self._finisher.add(session, record)
        self.tally.ended[record.state] += 1
        if self._events.followed(Attempted):
            self._events.emit(Attempted(job=job, result=result, record=record, worker=number))

    async def _sit_out(self, pause_s: float) -> None:
        self.tally.paused += 1
        self._wake.set()
        try:
            await pause(pause_s, self._stopping, self._clock)
        finally:
            self.tally.paused -= 1


async def pause(seconds: float, stopping: asyncio.Event, clock: Clock) -> None:
    """Waits, but not longer than until `stopping` is set."""
    if stopping.is_set():
        return
    sleep = asyncio.ensure_future(clock.sleep_s(seconds))
    stop = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait((sleep, stop), return_when=asyncio.FIRST_COMPLETED)
    finally:
        sleep.cancel()
        stop.cancel()


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _fault(error: BaseException, *, committed: bool) -> Result:
    step = Step.LOSE if committed else Step.RETRY
    detail = traceback.format_exception_only(error)[-1].strip()
    return Result(step, f"fault: {type(error).__name__}", detail)
