"""The inside of a pool: what its workers, submitters and timers share."""

import asyncio
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any, Final

from mailrace.clock import Clock
from mailrace.events import Events
from mailrace.pool.backlog import Backlog
from mailrace.pool.books import Books
from mailrace.pool.crew import Crew
from mailrace.pool.dispatch import Dispatch
from mailrace.pool.gates import Gates, Tickets
from mailrace.pool.happenings import PluginFailed, WorkerDied
from mailrace.pool.intake import Intake, check_size
from mailrace.pool.job import CURRENT, Job
from mailrace.pool.ledger import Ledger
from mailrace.pool.options import seconds
from mailrace.pool.plugins import Plugin, Plugins
from mailrace.pool.quiet import Quiet
from mailrace.pool.settings import PoolSettings
from mailrace.pool.settlement import Settlement
from mailrace.pool.states import JobState
from mailrace.pool.threads import Returns
from mailrace.pool.timers import Timers
from mailrace.pool.watch import Watch
from mailrace.pool.worker import Worker

AnyJob = Job[Any]

_AVAILABLE: Final = JobState.AVAILABLE
# Who would run a job and meets a pause is told of its end; this is for the timer only.
_PAUSE_LOOK_S: Final = 60.0


class Engine:
    """Joins the parts of one pool, on one loop.

    Attributes:
        attention: Something has to be asked before a job is started.
        gated: There are rate limits or breakers.
        accountable: Limits, breakers or a retry budget have to be told how an attempt ended.
        picky: There are limits that a job can be too large for.
        observed: Somebody follows outcomes or waits for quiet.
        plain: A coroutine function can be run as it is, without plugins around it.
        closed: No job starts any more, and workers leave.
        paused_s: Since when no job starts for now; `None` if they do.
        retries_until_s: An attempt that would begin later is not waited for: `hand_back` takes
            the job instead. The pool closes.
    """

    def __init__(
        self,
        name: str,
        settings: PoolSettings,
        *,
        plugins: tuple[Plugin, ...],
        clock: Clock,
        random: Random,
        events: Events,
    ) -> None:
        self.name = name
        self.loop = asyncio.get_running_loop()
        self.settings = settings
        self.clock = clock
        self.now = clock.monotonic_s
        self.events = events
        self.closed = self.attention = self.observed = False
        self.paused_s: float | None = None
        self.retries_until_s = float("inf")
        self.hand_back: Callable[[AnyJob], None] = lambda _: None
        self.timers = Timers(clock)
        self.plugins = Plugins(plugins, self._plugin_failed)
        self.plain = not self.plugins
        self.gates = Gates(settings, random.random)
        self.gated = bool(self.gates)
        self.picky = self.gated or settings.queue_bytes is not None
        self.budget = settings.retry_budget
        self.accountable = self.gated or self.budget is not None
        self.cancel_grace_s = seconds(settings.cancel_grace, "cancel_grace")
        self.backlog = Backlog(
            ageing_s=seconds(settings.ageing, "ageing"), keyed=is_keyed(settings)
        )
        self.books = Books(
            dead_letters=settings.dead_letters,
            metrics=settings.metrics,
            on_change=self.look,
            soon=self.from_anywhere,
            unix_s=clock.unix_s,
        )
        self.dispatch = Dispatch(self)
        self.watch = Watch(self)
        self.intake = Intake(self, settings)
        self.settlement = Settlement(self, random.random)
        self.crew = Crew(self, settings.scaling())
        # Bound once for the workers, which call them for every job.
        self.take = self.dispatch.take
        self.completed = self.settlement.completed
        self.returns = Returns(self.loop)
        self.quiet = Quiet(self)
        self._passing: set[asyncio.Event] = set()

    def start(self) -> None:
        self.crew.start()
        self.watch.change(self.settings.memory)
        self.look()

    @property
    def paused(self) -> bool:
        """Whether no job starts for now."""
        return self.paused_s is not None

    def pause(self, *, intake: bool) -> None:
        if self.paused_s is None:
            self.paused_s = self.now()
        self.intake.hold(held=intake)
        self.look()

    def resume(self) -> None:
        self.paused_s = None
        self.look_again()
        self.intake.hold(held=False)
        self.look()

    def change(self, settings: PoolSettings) -> None:
        """Goes on with other settings, which are valid: nothing here can fail half way."""
        now_s = self.now()
        self.settings = settings
        self.cancel_grace_s = seconds(settings.cancel_grace, "cancel_grace")
        self.budget = settings.retry_budget
        self.gates.change(settings, now_s)
        self.gated = bool(self.gates)
        self.accountable = self.gated or self.budget is not None
        self.picky = self.gated or settings.queue_bytes is not None
        self.dispatch.release()
        self.backlog.change(ageing_s=seconds(settings.ageing, "ageing"), keyed=is_keyed(settings))
        self.books.change(dead_letters=settings.dead_letters, metrics=settings.metrics)
        self.intake.change(settings)
        for worker in self.crew:
            worker.allowance = self.gates.for_worker(worker.allowance, now_s)
            if not self.gated:  # nobody takes them back, and they are not the next job's
                worker.tickets = Tickets()
        self.crew.end_rests()
        self.watch.change(settings.memory)
        self.crew.change(settings.scaling())  # the last: it tells followers, which may raise

    def number(self, job: AnyJob) -> None:
        """Accepts a job: from here on it is in the ledger."""
        self.books.accepted = job.id = self.books.accepted + 1
        job.submitted_s = job.queued_s = self.now()
        if job.terms.perishable:
            self._let_perish(job)

    def accept(self, job: AnyJob) -> None:
        """Accepts a job whose place is taken, and has it worked."""
        # `number` without its frame: this is here for every job (benchmarks/bench_pool.py).
        books = self.books
        books.accepted = job.id = books.accepted + 1
        job.submitted_s = job.queued_s = self.now()
        if job.terms.perishable:
            self._let_perish(job)
        self.dispatch.offer(job)

    def requeue(self, job: AnyJob) -> None:
        """The time of a job's next attempt has come."""
        job.state = _AVAILABLE
        if job.terms.deadline_s is not None:
            self._let_perish(job)
        job.queued_s = self.now()
        self.dispatch.offer(job)

    def look(self) -> None:
        """Works out anew whether workers have to ask before they start a job, and wakes them."""
        crew, books = self.crew, self.books
        crew.look()
        self.observed = bool(books.streams) or self.quiet.awaited
        self.attention = (
            self.paused or self.closed or crew.restless or books.streams.stalled or self.is_capped
        )
        crew.resume()
        self.dispatch.wake()

    def observe(self, job: AnyJob) -> None:
        """Tells whoever follows the pool how a job stands."""
        streams = self.books.streams
        if streams and (streams.retries or job.done()):
            streams.put(job.summary())
            if streams.stalled:
                self.attention = True
        if self.quiet.awaited:
            self.quiet.tell()

    def unfinished(self) -> list[AnyJob]:
        """All jobs without an outcome: waiting, delayed, running."""
        return [
            *self.backlog.jobs(),
            *self.settlement.delayed.values(),
            *self.intake.spilled.values(),
            *(worker.job for worker in self.crew if worker.job is not None),
        ]

    def came_late(self) -> float:
        """A function ended after its job had its outcome."""
        self.books.late += 1
        self.look()
        return self.now()

    def worker_gone(self, worker: Worker, error: BaseException | None) -> None:
        """A worker's task has ended; with an error if nobody had asked it to."""
        if error is not None and not self.closed and self._loop_ends():
            self._end_with_loop()
        if error is None or self.closed:
            self.crew.gone(worker)
        else:
            self.books.worker_died(self.now())
            self.crew.gone(worker, died=True)
            self.events.emit(WorkerDied(pool=self.name, worker=worker.number, error=error))

    def process_died(self, worker: Worker, error: BaseException) -> None:
        """A worker's process ended by itself; the next job gets a new one."""
        self.books.worker_died(self.now())
        self.events.emit(WorkerDied(pool=self.name, worker=worker.number, error=error))

    def callback_failed(self, job: AnyJob, error: BaseException) -> None:
        """Somebody's callback at a job's end raised; as asyncio has it for its futures."""
        message = f"a callback at the end of {job!r} raised"
        self.loop.call_exception_handler({"message": message, "exception": error})

    def _loop_ends(self) -> bool:
        """Whether all that the loop runs has been cancelled, as `asyncio.run` does at its end."""
        return all(task.cancelling() for task in asyncio.all_tasks(self.loop))

    def _end_with_loop(self) -> None:
        """Leaves nobody waiting for what will never be done; no worker comes any more."""
        self.closed = self.attention = True
        self.intake.close()
        for job in self.unfinished():
            if self.settlement.withdraw(job):
                self.settlement.hand_back(job)

    def ledger(self) -> Ledger:
        """Every accepted job, counted where it is now."""
        books, ended = self.books, self.books.ended
        return Ledger(
            accepted=books.accepted,
            queued=len(self.backlog) + len(self.intake.spilled),
            delayed=len(self.settlement.delayed),
            running=sum(worker.job is not None for worker in self.crew),
            completed=books.completed,
            failed=ended[JobState.FAILED],
            cancelled=ended[JobState.CANCELLED],
            expired=ended[JobState.EXPIRED],
            dropped=ended[JobState.DROPPED],
            handed_back=ended[JobState.HANDED_BACK],
            refused=books.refused,
        )

    async def waited(self, event: asyncio.Event) -> None:
        """Waits for an event, as `blocked` does."""
        waiting = self.loop.create_task(event.wait())
        try:
            await self.blocked(waiting)
        finally:
            waiting.cancel()

    def check(self, job: AnyJob) -> None:
        """Refuses what could never run.

        Raises:
            MisuseError: It is too large for the queue, or costs more than a limit lets through.
        """
        check_size(job, self.settings)
        self.gates.check(job.terms.cost)

    async def blocked(self, waiting: asyncio.Future[Any]) -> Any:
        """Waits; a job of this very pool lends its worker's place to others meanwhile."""
        job = CURRENT.get()
        if job is None or not job.belongs_to(self):
            return await waiting
        worker = job.worker
        if worker is None or worker.casual:  # it came beside the others: no place to lend
            return await waiting
        # One that was abandoned keeps its place busy, and has it to lend like any other.
        if job.state is not JobState.RUNNING and worker.abandoned is not job:
            return await waiting
        return await self.crew.lend(job, waiting)

    async def run_for_caller(self, job: AnyJob) -> None:
        """Runs a job on a worker of its own once the gates let it, and waits for its end."""
        begun = self.loop.create_future()
        worker = job.worker = self.crew.casual(job, begun)
        while (wait_s := self._wait_s(job, worker)) > 0:
            await self._pass(wait_s)
            self.intake.check_open()
        self.crew.join(worker)
        try:
            await begun
            await job.outcome()
        except asyncio.CancelledError:
            if worker.spare():
                self.gates.released(job)
                self.gates.refund(job, worker)
            self.settlement.cancel(job)
            raise

    def _wait_s(self, job: AnyJob, worker: Worker) -> float:
        """For how long a job that is to run in its caller has to wait before it asks again."""
        if self.paused:
            return _PAUSE_LOOK_S
        hold = self.gates.admit(job, worker, self.now()) if self.gated else None
        return 0.0 if hold is None else hold.wait_s

    async def _pass(self, wait_s: float) -> None:
        """Lets time pass."""
        over = asyncio.Event()
        timer = self.timers.at(self.now() + wait_s, over.set)
        self._passing.add(over)
        try:
            await self.waited(over)
        finally:
            self._passing.discard(over)
            timer.cancel()

    def look_again(self) -> None:
        """Who waits for the gates looks again: they have changed, or the pool closes."""
        for over in self._passing:
            over.set()

    def from_anywhere(self, callback: Callable[[], object]) -> None:
        """Calls back on the loop, from whatever thread; at once if that is the loop's own.

        Otherwise a job that says something about itself and returns would have ended first.
        """
        if asyncio._get_running_loop() is self.loop:  # noqa: SLF001 - documented for event loops
            callback()
            return

        def call(_: object, __: BaseException | None) -> None:
            callback()

        self.returns.post(call, None, None)

    def slowed(self) -> None:
        self.gates.slowed(self.now())

    def refund(self, job: AnyJob) -> None:
        if job.worker is not None and job.worker.job is job:
            self.gates.refund(job, job.worker)
            self.dispatch.release()

    def may_start(self, worker: Worker) -> bool:
        """Whether a worker may start a job: what is asked only if there is `attention`."""
        return not (
            self.paused or self.closed or self.books.streams.stalled or self.is_capped
        ) and (not self.crew.restless or self.crew.may_take(worker))

    @property
    def is_capped(self) -> bool:
        """Whether so many jobs run on after their end that no other may start."""
        most = self.settings.abandoned_max
        return most is not None and self.abandoned_jobs >= most

    @property
    def abandoned_jobs(self) -> int:
        """Jobs whose function runs on after their end."""
        return sum(worker.abandoned is not None for worker in self.crew)

    def _let_perish(self, job: AnyJob) -> None:
        perishes_s = job.perishes_s
        if perishes_s is not None:
            job.timer = self.timers.at(perishes_s, partial(self.settlement.expire, job))

    def _plugin_failed(self, error: BaseException) -> None:
        self.books.plugin_faults += 1
        self.events.emit(PluginFailed(pool=self.name, error=error))


def is_keyed(settings: PoolSettings) -> bool:
    """Whether keys take turns and can be held."""
    return settings.fair_keys or settings.key_rate is not None or settings.key_breaker is not None
