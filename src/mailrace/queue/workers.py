"""The attempts of a run: made by the workers of a pool, and written down."""

import asyncio
import contextlib
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from mailrace.clock import Clock
from mailrace.errors import ConflictError, MailraceError, RejectedError, UnavailableError
from mailrace.events import Events
from mailrace.pool import Job, Limiter, Pool, RetrySchedule, current_job
from mailrace.pool.driving import is_cancelled
from mailrace.queue.attempts import Gate, Handler, Result, finished, released
from mailrace.queue.finisher import Finisher
from mailrace.queue.jobs import ClaimedJob, Finished
from mailrace.queue.session import Session
from mailrace.queue.states import JobState, Step
from mailrace.queue.supply import Supply

# A worker whose far side cannot be reached pauses so long, doubling up to a minute.
_PAUSE_S = 1.0
_PAUSE_MAX_S = 60.0
# The buffer bounds what is claimed and not begun; jobs whose lease was lost may still stand in the
# pool's queue when others take their place.
_ROOM = 100_000
_FOR_EVER_S = 1e9
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
    """Has claimed jobs run by a pool, one attempt each, and notes the results.

    A fault in a handler costs its own job an attempt and touches no other.

    Args:
        on_fault: Called when something fails here that is no handler's doing.
    """

    def __init__(
        self,
        *,
        workers: int,
        buffer: int,
        handler: Handler,
        limiter: Limiter,
        finisher: Finisher,
        retry: RetrySchedule,
        clock: Clock,
        stopping: asyncio.Event,
        wake: asyncio.Event,
        events: Events,
        on_fault: Callable[[], None],
    ) -> None:
        self._pool = Pool(
            workers=workers,
            queue_size=_ROOM + buffer + workers,
            # Nobody but the handler knows whether the far side has the job: it has all the time.
            cancel_grace=_FOR_EVER_S,
            dead_letters=0,
            metrics=False,
            name="queue",
            clock=clock,
        )
        self._supply = Supply(workers, buffer)
        self._handler = handler
        self._limiter = limiter
        self._finisher = finisher
        self._retry = retry
        self._clock = clock
        self._stopping = stopping
        self._wake = wake
        self._events = events
        self._on_fault = on_fault
        self._stock: dict[int, ClaimedJob] = {}
        self._under_way: dict[int, tuple[Job[None], Gate]] = {}
        self._pauses_s: dict[int, float] = {}
        self._broken: dict[int, int] = {}
        self._fault: BaseException | None = None
        self._started = self._ending = False
        self.session: Session | None = None
        self.tally = Tally()

    async def start(self) -> None:
        await self._pool.start()
        self._started = True
        if self._stopping.is_set():
            self._pool.pause()

    @property
    def stock(self) -> int:
        """Claimed jobs that are not begun."""
        return len(self._stock)

    @property
    def low(self) -> bool:
        """Whether there should be more of them."""
        return self._supply.is_low(len(self._stock))

    def wanted(self) -> int:
        """How many jobs the claim that now follows should ask for; to be asked once a claim."""
        return self._supply.wanted(len(self._stock), self._clock.monotonic_s())

    def add(self, jobs: Iterable[ClaimedJob]) -> None:
        """Takes in what was claimed, first in, first out."""
        for job in jobs:
            self._stock[job.id] = job
            if not self._stopping.is_set():
                self._pool.submit_nowait(self._work_off, job.id)
        if self._stock:
            self._supply.filled(self._clock.monotonic_s())

    def give_up_stock(self) -> list[ClaimedJob]:
        """Takes out everything that is not begun."""
        jobs = list(self._stock.values())
        self._stock.clear()
        return jobs

    @property
    def committed(self) -> int:
        """Attempts that the far side may have by now."""
        return sum(gate.committed for _, gate in self._under_way.values())

    def recall(self) -> None:
        """Ends the attempts that are not committed; their jobs go back into the stock."""
        for job, gate in tuple(self._under_way.values()):
            if not gate.committed:
                gate.recalled = True
                job.cancel()

    def stop(self) -> None:
        """Begins no more attempts; `stopping` is set."""
        if self._started and not self._ending:
            self._pool.pause()

    async def finish(self) -> None:
        """Begins no more attempts and waits until those under way have ended.

        Raises:
            Exception: What failed here, if something did.
        """
        self._ending = True
        await self._pool.close(None, finish_queue=False)
        if self._fault is not None:
            raise self._fault

    async def cancel(self) -> None:
        """Ends all attempts at once. Idempotent."""
        self._ending = True
        await self._pool.close(0)

    async def _work_off(self, job_id: int) -> None:
        """One attempt; a worker that cannot reach the far side sits out for a while after it."""
        job = self._stock.pop(job_id, None)
        if job is None:
            return  # its lease was lost, and with it the job
        if self.low:
            self._wake.set()
        worker = current_job().worker
        assert worker is not None
        number = worker.number
        try:
            if await self._attempt(job, number):
                self._pauses_s.pop(number, None)
            else:
                await self._sit_out(number)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._fault = self._fault or error
            self._on_fault()
            raise

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
        self._under_way[number] = current_job(), gate
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
            if is_cancelled():
                self._abandon(session, job, number, committed=gate.committed)
                raise
            result = _fault(error, committed=gate.committed)  # something of the handler's own
            record = self._record(job, result)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - any fault of a handler is its job's outcome
            if isinstance(error, ConflictError) and not session.alive:
                return True  # the lease ran out on the way; whoever has it now goes on
            result = _fault(error, committed=gate.committed)
            record = self._record(job, result)
        else:
            self.tally.trouble = None
            self.tally.troubles = 0
            self._broken.pop(job.id, None)
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
            self.add([job])  # behind the others: it may be what is in the way

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

    async def _sit_out(self, number: int) -> None:
        pause_s = self._pauses_s.get(number, _PAUSE_S)
        self._pauses_s[number] = min(_PAUSE_MAX_S, pause_s * 2)
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


def _fault(error: BaseException, *, committed: bool) -> Result:
    step = Step.LOSE if committed else Step.RETRY
    detail = traceback.format_exception_only(error)[-1].strip()
    return Result(step, f"fault: {type(error).__name__}", detail)
