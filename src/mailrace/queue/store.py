"""The port to a place where durable jobs live. Conformance: `tests/queue/conformance/`.

Every method is one transaction, committed to disk when it returns, and judges time by the store's
own clock: what crosses the port are delays, or moments that the store has told.

Raises:
    UnavailableError: From every method: out of reach, locked for too long, disk full, I/O error.
        Nothing of the call was done, or, where the answer was lost on the way, all of it:
        repeating the call is safe for `finish`, `rescue`, and whatever names an idempotency key.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol

from mailrace.pool.limiter import Slots
from mailrace.queue.batches import Batch, BatchReport, Reason
from mailrace.queue.commands import Answer, Command, NewCommand
from mailrace.queue.figures import QueueFigures, Throughput
from mailrace.queue.flows import Flow, Want
from mailrace.queue.jobrows import EndedCount, JobDetail, JobFilter, JobRow
from mailrace.queue.jobs import ClaimedJob, Enqueued, Finished, NewJob
from mailrace.queue.limits import CommonSlot, LimitRow
from mailrace.queue.processes import NewProcess, ProcessRow, Vitals
from mailrace.queue.queuerules import QueueRules
from mailrace.queue.schedules import ScheduleRow
from mailrace.queue.states import JobState
from mailrace.queue.storedpayloads import Payloads


class Intake(Protocol):
    """Where jobs come in."""

    async def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """Adds jobs, all or none, and answers in their order.

        A job whose idempotency key is known, or whose unique key a live job has, is not added; the
        answer names the one that was there. Of two such in one call the first counts.

        Raises:
            ConflictError: A queue is draining, or a batch is sealed or not known.
        """
        ...

    async def open_batch(
        self, name: str, kind: str, spec: bytes, *, completion: NewJob | None = None
    ) -> Batch:
        """The batch of that name, made with the rest if there is none.

        Args:
            completion: A job to enqueue, once, when the batch is sealed and all its jobs are final.
        """
        ...

    async def seal_batch(self, batch_id: int) -> None:
        """Lets nothing more into a batch. Idempotent."""
        ...

    async def batches(self) -> list[Batch]:
        """All batches, the newest first."""
        ...

    async def report(self, batch_id: int) -> BatchReport:
        """Where a batch stands, from kept counts.

        Raises:
            ConflictError: There is no such batch.
        """
        ...

    async def reasons(self, batch_id: int) -> list[Reason]:
        """The twenty most frequent reasons, the most frequent first."""
        ...


class Claims(Protocol):
    """Where workers take jobs and bring them back."""

    marks_begun: bool
    """Whether `begin` notes anything: where every process can read every journal it need not."""

    async def register(self, process: NewProcess, lease_s: float) -> int:
        """Enters a process, which may then claim; returns its id, never used before."""
        ...

    def renewer(self, process_id: int, lease_s: float) -> Callable[[Vitals], bool]:
        """A blocking call, for a thread of its own, that prolongs the leases of the process.

        It keeps the vitals, on a connection of its own, and returns false when the process is no
        longer known: somebody rescued its jobs.
        """
        ...

    async def survey(self, queues: Sequence[str], *, most: int = 256) -> list[Flow]:
        """The flows of these queues that have waiting jobs, due or not.

        At most `most` a queue; the next survey by this store object goes on behind the last
        tenant of such a cut list, so that every tenant comes into view. `*` means all queues.
        """
        ...

    async def claim(
        self, process_id: int, wants: Sequence[Want], *, once: Sequence[str] = ()
    ) -> list[ClaimedJob]:
        """Takes due jobs of each flow, in the order of their times.

        An error may come after some were taken: `held` tells them.

        Nothing is taken from paused queues, nor more than the concurrency of a queue or of a key
        allows over all processes. A lane decides what `once` is; where a job has none, its kind.

        Args:
            once: Kinds whose jobs become uncertain when an attempt has no result.

        Raises:
            ConflictError: The process is no longer known.
        """
        ...

    async def held(self, process_id: int) -> list[tuple[int, int]]:
        """The jobs that a process holds, begun or not, with their leases."""
        ...

    async def begin(self, process_id: int, jobs: Sequence[tuple[int, int]]) -> list[int]:
        """Notes of `once` jobs, by id and lease, that their attempts may begin now.

        Visible to everybody when it returns. It need not survive a crash of the store itself.

        Returns:
            The ids of those whose lease is not the process's any more: they must not begin. A
            store that does not mark what begins (`marks_begun`) has none to tell.
        """
        ...

    async def finish(self, records: Sequence[Finished]) -> int:
        """Writes how attempts ended; returns how many were refused, as their lease had gone.

        `die` counts a death, and fails the job when that was the last one it may cause. Where the
        job has an earlier cancel request, `retry`, `snooze`, `release` and `die` cancel it.
        """
        ...

    async def rescue(
        self, process: ProcessRow, records: Sequence[Finished], *, known: bool
    ) -> int | None:
        """Ends a process: writes `records`, then lets go of all else that it held.

        Only if its lease is still the one given in `process`: a process that renewed meanwhile
        is alive, and the answer is `None`.

        Args:
            known: The records say all that was begun: the rest is released, no attempt counted.
                Otherwise `once` jobs that may have been begun become uncertain: those noted by
                `begin`, or all of them where the store cannot trust its notes.

        Returns:
            How many jobs it held beyond the records.
        """
        ...

    async def retire(self, process_id: int) -> bool:
        """Ends a process that holds nothing any more; one that does is left to be rescued.

        Returns:
            Whether the process is gone, now or since earlier: nobody needs its journal any more.
        """
        ...

    def wakeups(self, queues: Sequence[str]) -> AsyncIterator[None]:
        """Yields when jobs may have come into these queues, at most about 100 times a second.

        An accelerator only: it may miss some or be silent for ever (`listening` tells), and never
        raises; whoever waits for jobs asks at intervals all the same.
        """
        ...

    @property
    def listening(self) -> bool:
        """Whether wake-ups are known to arrive: a round trip was seen lately."""
        ...


class Desk(Protocol):
    """Where people look at jobs and decide."""

    async def find(
        self, where: JobFilter, *, limit: int = 100, before_id: int | None = None
    ) -> list[JobRow]:
        """Jobs of all states, the newest first; `before_id` goes on where the last page ended."""
        ...

    async def detail(self, job_id: int) -> JobDetail | None: ...

    async def cancel(self, where: JobFilter, *, limit: int = 10_000) -> int:
        """Cancels waiting jobs; asks for it where they run (`cancels` tells their processes).

        Returns how many were cancelled or asked for.
        """
        ...

    async def cancels(self, process_id: int) -> list[int]:
        """The running jobs of a process that somebody wants cancelled."""
        ...

    async def revive(self, where: JobFilter, *, limit: int = 10_000) -> int:
        """Makes failed, cancelled, expired or uncertain jobs available, their attempts begun anew.

        A job whose unique key another live job has by now stays as it is. Returns how many.
        """
        ...

    async def resend(self, batch_id: int) -> int:
        """Revives the uncertain jobs of a batch, all of them; returns how many."""
        ...

    async def reschedule(self, where: JobFilter, delay_ms: int, *, limit: int = 10_000) -> int:
        """Gives waiting jobs another time; returns how many."""
        ...

    async def delete(self, where: JobFilter, *, limit: int = 10_000) -> int:
        """Removes final jobs for good; running and waiting ones stay. Returns how many."""
        ...

    async def ended_counts(self, where: JobFilter) -> list[EndedCount]:
        """Final jobs other than completed ones, grouped, the largest group first."""
        ...


class Rules(Protocol):
    """What holds for everybody: queues, limits, schedules."""

    async def queue_rules(self) -> list[QueueRules]: ...

    async def set_queue(self, rules: QueueRules, *, only: Sequence[str] | None = None) -> None:
        """Makes or changes the rules of a queue, in one step.

        Args:
            only: The fields to change where the queue has rules; all of them by default.
        """
        ...

    async def limits(self) -> list[LimitRow]: ...

    async def set_limit(self, limit: LimitRow) -> None:
        """Makes or changes a limit; its slots and its pace go on from where they are."""
        ...

    async def remove_limit(self, name: str) -> bool: ...

    async def take_slots(self, name: str, default: LimitRow | None, *, span_s: float) -> Slots:
        """Takes what the limit lets go in about `span_s` seconds, at least one slot, in a row.

        Args:
            default: What the limit is made with if there is none of that name.

        Raises:
            ConflictError: There is no such limit, and no default.
        """
        ...

    async def take_together(
        self, names: Sequence[str], defaults: Mapping[str, LimitRow], *, slack_s: float
    ) -> CommonSlot:
        """Takes one slot of each limit for one moment, or none.

        None where a limit would have to wait longer than the slack for the last one: those who
        share it would lose what it could let go meanwhile.

        Raises:
            ConflictError: There is no such limit, and no default.
        """
        ...

    async def slow_limit(
        self, name: str, *, factor: float, floor: float, cool_down_s: float
    ) -> float:
        """Multiplies the pace of an adaptive limit, once within the cool-down; returns the pace.

        Raises:
            ConflictError: There is no such limit.
        """
        ...

    async def quicken_limits(self, *, step: float, every_s: float) -> int:
        """Raises the pace of slowed limits by a step, each once in `every_s`; returns how many."""
        ...

    async def schedules(self) -> list[ScheduleRow]:
        """All of them, by name; one whose job cannot be read has none, and says why."""
        ...

    async def put_schedule(self, schedule: ScheduleRow) -> None:
        """Makes or changes a schedule; one that is there keeps its last slot.

        Raises:
            MisuseError: It is one whose job could not be read.
        """
        ...

    async def remove_schedule(self, name: str) -> bool: ...

    async def fire(self, name: str, slot_ms: int) -> bool:
        """Enqueues a schedule's job for a slot; false where that slot was fired already.

        A unique row for each slot, in the transaction of the job, keeps two processes apart. The
        rows are kept for 40 days before the newest; a slot before that counts as fired.

        Raises:
            ConflictError: There is no such schedule, or its queue is draining.
        """
        ...


class Fleet(Protocol):
    """Where processes hear of each other."""

    async def now_ms(self) -> int:
        """The store's clock, Unix milliseconds."""
        ...

    async def processes(self) -> list[ProcessRow]:
        """All processes that may hold leases, the oldest first."""
        ...

    async def command(self, command: NewCommand) -> int:
        """Gives an order; returns its id."""
        ...

    async def commands(self, targets: Sequence[str], after_id: int) -> list[Command]:
        """Orders to any of the targets that have not expired, the oldest first."""
        ...

    async def answer(self, answer: Answer) -> None:
        """Keeps an answer, the latest of each; does nothing if the command is forgotten."""
        ...

    async def answers(self, command_id: int) -> list[Answer]: ...

    async def take_turn(self, name: str, every_s: float) -> bool:
        """Whether it is the caller's turn at something that one process does for all."""
        ...

    async def note(self, name: str, value: bytes | None) -> None:
        """Keeps a small JSON value for everybody under a name; `None` removes it."""
        ...

    async def notes(self, prefix: str) -> dict[str, bytes]: ...


class Figures(Protocol):
    """How much there is and was; none of it counts rows without bound."""

    async def queue_figures(self) -> list[QueueFigures]: ...

    async def throughput(self, hours: float) -> list[Throughput]:
        """The last hours, minute by minute, the oldest first."""
        ...


class Upkeep(Protocol):
    """What somebody has to do now and then; every call is bounded and safe to repeat."""

    async def complete_batches(self) -> int:
        """Makes the completion jobs of sealed batches that are final; returns how many.

        One that cannot be made holds up no other.

        Raises:
            MisuseError: A completion job cannot be read; when all others are made.
            ConflictError: One is not taken in for now.
        """
        ...

    async def expire(self, *, limit: int = 1000) -> int:
        """Ends waiting jobs whose time is over; returns how many."""
        ...

    async def retain(self, keep_s: dict[JobState, float], *, limit: int = 5000) -> int:
        """Removes final jobs that are older than their state is kept; returns how many."""
        ...

    async def tidy(self) -> None:
        """Folds counts, makes and drops partitions, forgets old keys, commands and slots."""
        ...


class Store(Intake, Claims, Desk, Payloads, Rules, Fleet, Figures, Upkeep, Protocol):
    """All of it: what a process opens once."""

    async def close(self) -> None:
        """Idempotent."""
        ...
