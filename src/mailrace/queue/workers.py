"""The attempts of a process: made by the workers of a pool, and written down."""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from mailrace.clock import Clock
from mailrace.errors import ConflictError, MailraceError, RejectedError, UnavailableError
from mailrace.events import Events
from mailrace.pool import Job, Limiter, Pool, RetrySchedule, current_job
from mailrace.queue.attempts import Chunks, Gate, Handler, Result
from mailrace.queue.begun import Begun
from mailrace.queue.endings import Endings
from mailrace.queue.finisher import Finisher
from mailrace.queue.jobs import ClaimedJob
from mailrace.queue.loops import pause
from mailrace.queue.session import Session
from mailrace.queue.slices import Slices
from mailrace.queue.stock import Stock
from mailrace.queue.supply import Supply

if TYPE_CHECKING:
    from mailrace.queue.lines import Lines

# A worker whose far side cannot be reached pauses so long, doubling up to a minute.
_PAUSE_S = 1.0
_PAUSE_MAX_S = 60.0
_FOR_EVER_S = 1e9


class Workers:
    """Has claimed jobs run by the workers of a pool, one attempt each, and notes the results.

    What is submitted to the pool is a *turn*: it takes ready jobs out of the stock, one after the
    other, until there are none. A fault in a handler costs its own job an attempt and touches no
    other.

    Attributes:
        lines: Where jobs wait for limits of their queues; `None`: none has any.

    Args:
        chunks: Does jobs of its kinds, many at a time, instead of the handler.
        begun: Told of `once` jobs before they begin.
        cancel_grace_s: How long a cancelled handler may take to end; by default all the time it
            wants, as only it knows whether the far side has the job.
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
        begun: Begun,
        chunks: Chunks | None = None,
        cancel_grace_s: float = _FOR_EVER_S,
    ) -> None:
        self._pool = Pool(
            workers=workers,
            queue_size=2 * workers,
            cancel_grace=cancel_grace_s,
            dead_letters=0,
            metrics=False,
            name="queue",
            clock=clock,
        )
        self._supply = Supply(workers, buffer)
        self._slices = Slices(clock)
        self._handler = handler
        self._limiter = limiter
        self._clock = clock
        self._stopping = stopping
        self._wake = wake
        self._on_fault = on_fault
        self._size = workers
        self._turns = 0
        self._paused = False
        self._chunks = chunks
        self._chunk_sizes = {} if chunks is None else chunks.sizes
        self._stock = Stock(self._chunk_sizes)
        self._endings = Endings(finisher, retry, clock, events, again=lambda job: self.add([job]))
        self._begun = begun
        self.lines: Lines | None = None
        self._at_work: dict[int, Job[None]] = {}
        self._under_way: dict[int, list[Gate]] = {}
        # Jobs that were in hand when a process died go one at a time: only the one that kills is in
        # hand when that happens again, and the others do not die with it three times.
        self._suspects = asyncio.Lock()
        self._pauses_s: dict[int, float] = {}
        self._fault: BaseException | None = None
        self._started = self._ending = False
        self.session: Session | None = None
        self.tally = self._endings.tally

    async def start(self) -> None:
        await self._pool.start()
        self._started = True

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

    def claimed(self, jobs: int) -> None:
        """Notes what a claim brought."""
        self._supply.claimed(jobs, self._clock.monotonic_s())

    def look_again(self) -> None:
        """Has more be claimed if there are no jobs: some may be due that were not before."""
        self._supply.look_again()
        if not self._stock:
            self._wake.set()

    def add(self, jobs: Iterable[ClaimedJob]) -> None:
        """Takes in jobs, first in, first out: claimed ones, and those that are to wait again."""
        stock, lines = self._stock, self.lines
        for job in jobs:
            stock.hold(job)
            if lines is None or not lines.takes(job):
                stock.make_ready(job.id)
        self._call()

    def start_job(self, job_id: int) -> None:
        """Has a job run that waited for its limits, which leaves room for another one to wait."""
        self._supply.look_again()
        if self._stock.make_ready(job_id):
            self._call()

    def note_trouble(self, error: Exception) -> None:
        """Something that is in the way, for whoever looks."""
        if isinstance(error, MailraceError):
            self.tally.trouble = error

    def give_up_stock(self) -> list[ClaimedJob]:
        """Takes out everything that is not begun."""
        if self.lines is not None:
            self.lines.forget()
        return self._stock.give_up()

    def pause(self) -> None:
        """Begins no more attempts until `resume`."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._call()

    @property
    def committed(self) -> int:
        """Attempts that the far side may have by now."""
        return sum(gate.committed for gates in self._under_way.values() for gate in gates)

    @property
    def under_way(self) -> int:
        """Workers that have an attempt in hand."""
        return len(self._under_way)

    def known(self) -> set[tuple[int, int]]:
        """The claims that it has in stock or in hand, by job and lease."""
        begun = (gate.job for gates in self._under_way.values() for gate in gates)
        return {(job.id, job.lease) for job in (*self._stock.held(), *begun)}

    def recall(self) -> None:
        """Ends the attempts that are not committed; their jobs go back into the stock."""
        for number, gates in tuple(self._under_way.items()):
            if not any(gate.committed for gate in gates):
                for gate in gates:
                    gate.recalled = True
                self._at_work[number].cancel()

    def cancel_jobs(self, ids: Collection[int]) -> None:
        """Ends jobs for good, as somebody asked; one that is committed goes on to its end."""
        for job_id in ids:
            held = self._stock.take_out(job_id)
            if held is not None and self.session is not None and self.session.alive:
                self._endings.cancelled(self.session, held)
        for number, gates in tuple(self._under_way.items()):
            if len(gates) == 1 and gates[0].job.id in ids and not gates[0].committed:
                gates[0].cancelled = True
                self._at_work[number].cancel()

    async def finish(self, within_s: float | None = None) -> None:
        """Begins no more attempts and waits until those under way have ended.

        Args:
            within_s: Then they are cancelled.

        Raises:
            Exception: What failed here, if something did.
        """
        self._ending = True
        await self._pool.close(within_s, finish_queue=False)
        if self._fault is not None:
            raise self._fault

    async def cancel(self) -> None:
        """Ends all attempts at once. Idempotent."""
        self._ending = True
        await self._pool.close(0)

    def _call(self) -> None:
        """Has as many workers come as there are jobs for."""
        if self._stopping.is_set() or self._ending or self._paused or not self._started:
            return
        for _ in range(min(self._size - self._turns, self._stock.ready)):
            self._turns += 1
            self._pool.submit_nowait(self._turn)

    async def _turn(self) -> None:
        """One job after the other, until there is none or something stops it."""
        turn = current_job()
        assert turn.worker is not None
        try:
            self._at_work[turn.worker.number] = turn
            await self._work_off(turn.worker.number)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._fault = self._fault or error
            self._on_fault()
            raise
        finally:
            del self._at_work[turn.worker.number]
            self._turns -= 1
            self._call()

    async def _work_off(self, number: int) -> None:
        """The hot path of the queue (benchmarks/bench_queue.py)."""
        now, slices = self._clock.monotonic_s, self._slices
        while (job := self._next()) is not None:
            session = self.session
            if session is None or not session.alive:
                continue  # the lease is gone, and with it the job
            if job.expires_ms is not None and self._endings.is_over(session, job, number):
                continue
            if job.kind in self._chunk_sizes:
                stay = await self._attempt_chunk(session, job, number)
            else:
                stay = await self._attempt(session, job, number)
            if not stay:
                return
            if now() >= slices.until_s:
                await slices.next()

    def _next(self) -> ClaimedJob | None:
        if self._paused or self._stopping.is_set():
            return None
        job = self._stock.take()
        if self._supply.calls(len(self._stock)):
            self._wake.set()
        return job

    async def _attempt(self, session: Session, job: ClaimedJob, number: int) -> bool:
        """Runs the handler once; a worker that cannot reach the far side sits out after it.

        Returns:
            Whether the turn may go on: not if it was to be cancelled, as that may still be coming.
        """
        gate = Gate(job, self._limiter, session)
        self._under_way[number] = [gate]
        tally = self.tally
        tally.in_hand += 1
        try:
            reached = await self._handle(session, job, gate, number)
        finally:
            tally.in_hand -= 1
            del self._under_way[number]
        if not reached:
            await self._sit_out(number)
        elif self._pauses_s:
            self._pauses_s.pop(number, None)
        return not (gate.recalled or gate.cancelled)

    async def _attempt_chunk(self, session: Session, first: ClaimedJob, number: int) -> bool:
        """Runs a chunk handler once, for the job and others of its kind that are ready."""
        assert self._chunks is not None
        more = self._more_like(first)
        jobs = [first, *(job for job in more if not self._endings.is_over(session, job, number))]
        gates = [Gate(job, self._limiter, session) for job in jobs]
        self._under_way[number] = gates
        self.tally.in_hand += (in_hand := len(jobs))
        try:
            await self._begun.note_many(session, jobs)
            await self._keep_in_time(jobs, gates)
            async with self._suspects if first.deaths else contextlib.nullcontext():
                results = await self._chunks.together(jobs, gates)
        except asyncio.CancelledError:
            for gate in gates:
                self._endings.cut_off(session, gate.job, gate, number)
            raise
        except (UnavailableError, ConflictError) as error:  # none of them can begin
            self.note_trouble(error)
            for gate in gates:
                self._endings.cut_off(session, gate.job, gate, number)
            results = None
        except Exception as error:  # noqa: BLE001 - whatever it is, it costs these jobs an attempt
            for gate in gates:
                self._endings.raised(session, gate.job, gate, error, number)
            return True
        finally:
            self.tally.in_hand -= in_hand
            del self._under_way[number]
        if results is None:
            if session.alive:
                await self._sit_out(number)
            return session.alive
        for gate, result in zip(gates, results, strict=True):
            self._end_of_chunk(session, gate, result, number)
        return not any(gate.recalled or gate.cancelled for gate in gates)

    def _more_like(self, first: ClaimedJob) -> list[ClaimedJob]:
        """Takes out others that go into one chunk with it; those that go alone go back."""
        most = 1 if first.deaths else self._chunk_sizes[first.kind]
        more = self._stock.take_more(first.kind, most - 1)
        if suspects := [job for job in more if job.deaths]:
            self.add(suspects)  # alone, when its turn comes
            more = [job for job in more if not job.deaths]
        return more

    def _end_of_chunk(self, session: Session, gate: Gate, result: Result, number: int) -> None:
        """Writes down one of a chunk's results; one that is none costs the others nothing."""
        try:
            record = self._endings.record(gate.job, result)
        except Exception as error:  # noqa: BLE001 - as in `_handle`
            self._endings.raised(session, gate.job, gate, error, number)
        else:
            self._endings.answered(session, gate.job, result, record, number)

    async def _keep_in_time(self, jobs: list[ClaimedJob], gates: list[Gate]) -> None:
        """Takes out those whose slots are too old: they wait in line once more.

        They are not waited for here: all of a chunk would go in the moment of the last one's slot.
        """
        lines = self.lines
        late = [] if lines is None else [job for job in jobs if lines.is_late(job)]
        if lines is None or not late:
            return
        none_in_time = len(late) == len(jobs)
        if none_in_time:
            del late[0]
        back = {job.id for job in late}
        jobs[:] = [job for job in jobs if job.id not in back]
        gates[:] = [gate for gate in gates if gate.job.id not in back]
        self.add(late)
        if none_in_time:
            await lines.wait(jobs[0])

    async def _handle(self, session: Session, job: ClaimedJob, gate: Gate, number: int) -> bool:
        """Runs the handler once; false when the far side cannot be reached."""
        lines = self.lines
        try:
            if job.once:
                await self._begun.note(session, job)
            if lines is not None and lines.is_late(job):
                await lines.wait(job)
            if job.deaths:
                async with self._suspects:
                    result = await self._handler(job, gate)
            else:
                result = await self._handler(job, gate)
            record = self._endings.record(job, result)
        except (UnavailableError, RejectedError) as error:
            return not self._endings.unreachable(session, job, gate, error, number)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            if self._endings.raised(session, job, gate, error, number):
                raise
        else:
            self._endings.answered(session, job, result, record, number)
        return True

    async def _sit_out(self, number: int) -> None:
        pause_s = self._pauses_s.get(number, _PAUSE_S)
        self._pauses_s[number] = min(_PAUSE_MAX_S, pause_s * 2)
        self.tally.paused += 1
        self._wake.set()
        try:
            await pause(pause_s, self._stopping, self._clock)
        finally:
            self.tally.paused -= 1
