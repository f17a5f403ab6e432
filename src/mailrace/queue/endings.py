"""What follows from the end of an attempt: a record, or the job's return into the stock."""

import asyncio
import contextlib
import traceback
from collections.abc import Callable

from mailrace.clock import Clock
from mailrace.errors import ConflictError, MailraceError, RejectedError, UnavailableError
from mailrace.events import Events
from mailrace.pool import RetrySchedule
from mailrace.pool.driving import is_cancelled
from mailrace.queue.attempts import Gate, Result, finished, released
from mailrace.queue.finisher import Finisher
from mailrace.queue.jobs import ClaimedJob, Finished
from mailrace.queue.session import Session
from mailrace.queue.states import Step
from mailrace.queue.tally import Attempted, Tally, Troubled

# A job over which the conversation broke so often is retried on its own schedule.
_BREAKS = 3


class Endings:
    """Notes how attempts ended: in the journal first, then with whoever writes to the store.

    Args:
        again: Takes a job back that is to be begun once more by this process.
    """

    def __init__(
        self,
        finisher: Finisher,
        retry: RetrySchedule,
        clock: Clock,
        events: Events,
        *,
        again: Callable[[ClaimedJob], object],
    ) -> None:
        self._finisher = finisher
        self._retry = retry
        self._clock = clock
        self._events = events
        self._again = again
        self._broken: dict[int, int] = {}
        self.tally = Tally()
        finisher.on_refused = events.emit

    def record(self, job: ClaimedJob, result: Result) -> Finished:
        """What the ledger is to be told.

        Raises:
            ConflictError: The result's step is none that an attempt can end with.
        """
        return finished(job, result, self._retry, self.now_ms())

    def end(self, session: Session, job: ClaimedJob, result: Result, number: int) -> None:
        """Writes down what came of an attempt."""
        self._note(session, job, result, self.record(job, result), number)

    def answered(
        self, session: Session, job: ClaimedJob, result: Result, record: Finished, number: int
    ) -> None:
        """The handler came back, with its record: the far side can be reached."""
        tally = self.tally
        tally.trouble = None
        tally.troubles = 0
        if self._broken:
            self._broken.pop(job.id, None)
        self._note(session, job, result, record, number)

    def is_over(self, session: Session, job: ClaimedJob, number: int) -> bool:
        """Whether its time has passed; then it is ended here."""
        if job.expires_ms is None or self.now_ms() < job.expires_ms:
            return False
        over = Result(Step.EXPIRE, "expired", "its time was over before it was begun")
        self.end(session, job, over, number)
        return True

    def cancelled(self, session: Session, job: ClaimedJob) -> None:
        """Somebody cancelled a job that was held and not begun."""
        self.end(session, job, Result(Step.CANCEL, "cancelled", "cancelled before it was begun"), 0)

    def unreachable(
        self, session: Session, job: ClaimedJob, gate: Gate, error: MailraceError, number: int
    ) -> bool:
        """The handler says that nothing was done; false if the job is taken to be the reason."""
        self._events.emit(Troubled(error=error, worker=number))
        if self._is_to_blame(job, gate):
            blamed = Result(Step.RETRY, "connection lost", str(error), category="network")
            self.end(session, job, blamed, number)
            return False
        self.tally.trouble = error
        self.tally.troubles += 1
        self.tally.rejected = self.tally.rejected or isinstance(error, RejectedError)
        self._take_back(session, job, gate)
        return True

    def raised(
        self, session: Session, job: ClaimedJob, gate: Gate, error: BaseException, number: int
    ) -> bool:
        """The attempt ended with an exception; whether that is its cancellation from here."""
        if isinstance(error, asyncio.CancelledError) and is_cancelled():
            self.cut_off(session, job, gate, number)
            return True
        if isinstance(error, ConflictError) and not session.alive:
            return False  # the lease ran out on the way; whoever has it now goes on
        fault = _fault(error, lost=gate.committed and job.once)
        self.end(session, job, fault, number)
        return False

    def cut_off(self, session: Session, job: ClaimedJob, gate: Gate, number: int) -> None:
        """What becomes of an attempt that was cancelled from here."""
        if gate.committed and job.once:
            lost = Result(Step.LOSE, "no reply", "stopped before a reply was seen")
            self.end(session, job, lost, number)
        elif gate.cancelled:
            cancelled = Result(Step.CANCEL, "cancelled", "cancelled while it ran")
            self.end(session, job, cancelled, number)
        else:
            self._take_back(session, job, gate)

    def _note(
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

    def now_ms(self) -> int:
        return int(self._clock.unix_s() * 1000)

    def _take_back(self, session: Session, job: ClaimedJob, gate: Gate) -> None:
        """Has a job begun once more, behind the others: it may be what is in the way."""
        if gate.begun:  # the journal says that it was begun, and nothing was done
            with contextlib.suppress(UnavailableError):
                session.journal.finished(released(job, self.now_ms()))
        if session.alive:  # or the job would go out under a lease that is not its own
            self._again(job)

    def _is_to_blame(self, job: ClaimedJob, gate: Gate) -> bool:
        """Whether the conversation broke too often over this very job."""
        if not gate.permitted:
            return False
        broken = self._broken[job.id] = self._broken.get(job.id, 0) + 1
        if broken < _BREAKS:
            return False
        del self._broken[job.id]
        return True


def _fault(error: BaseException, *, lost: bool) -> Result:
    step = Step.LOSE if lost else Step.RETRY
    detail = traceback.format_exception_only(error)[-1].strip()
    return Result(step, f"fault: {type(error).__name__}", detail, category="system")
