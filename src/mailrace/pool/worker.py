"""One worker: a slot that runs one job at a time, on the loop, in its thread or its process."""

import asyncio
from typing import TYPE_CHECKING, Any, Final

from mailrace.pool.driving import rest
from mailrace.pool.errors import WorkerDiedError
from mailrace.pool.gates import Tickets
from mailrace.pool.job import CURRENT, Job
from mailrace.pool.offload import Offload
from mailrace.pool.options import Kind
from mailrace.pool.outcome import Reason
from mailrace.pool.processes import ProcessDiedError
from mailrace.pool.states import JobState

if TYPE_CHECKING:
    from mailrace.pool.allowance import Allowance
    from mailrace.pool.engine import Engine
    from mailrace.pool.timers import Timer

AnyJob = Job[Any]
Only = tuple[AnyJob, "asyncio.Future[None]"]

_LOOP: Final = Kind.LOOP
_THREAD: Final = Kind.THREAD
_RUNNING: Final = JobState.RUNNING
_NO_TICKETS: Final = Tickets()
_NEVER_S: Final = float("inf")
# Jobs that never wait for anything would keep the loop to themselves: so long at a time they may.
_TURN_S: Final = 0.001


class Worker:
    """A task that takes one job after the other, strictly one at a time.

    Attributes:
        number: Unique within its pool.
        job: What it runs; `None` if nothing.
        abandoned: A job that has its outcome but still runs here.
        casual: It came for one job only, beside the others.
        tickets: With what its attempt was let through limits and breakers.
        relieved: It is to leave after its job.
        leaving: Its task is about to end.
        woken: It is on its way from being parked to a job.
        idle_since_s: When it last had nothing more to do.
    """

    __slots__ = (
        "_alarm",
        "_cancels",
        "_due_s",
        "_engine",
        "_offload",
        "_only",
        "_parked",
        "_task",
        "abandoned",
        "allowance",
        "casual",
        "ending",
        "idle_since_s",
        "job",
        "leaving",
        "number",
        "relieved",
        "tickets",
        "woken",
    )

    def __init__(self, engine: "Engine", number: int, *, only: Only | None = None) -> None:
        self._engine = engine
        self._only = only
        self.casual = only is not None
        self.relieved = False
        self.leaving = False
        self.woken = False
        self.number = number
        self.job: AnyJob | None = None
        self.abandoned: AnyJob | None = None
        self.ending: Reason | None = None
        self.idle_since_s = engine.now()
        self.tickets = _NO_TICKETS
        self.allowance: Allowance | None = engine.gates.for_worker()
        self._cancels = 0
        self._due_s = _NEVER_S
        self._alarm: Timer | None = None
        self._parked: asyncio.Future[bool] | None = None
        self._offload = Offload(engine, number)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        # By no task factory: an eager one would begin its work before its task is known.
        self._task = asyncio.Task(
            self._work(),
            loop=self._engine.loop,
            name=f"{self._engine.name} worker {self.number}",
        )
        self._task.add_done_callback(self._gone)

    @property
    def ended(self) -> asyncio.Task[None]:
        """Its task."""
        assert self._task is not None
        return self._task

    @property
    def is_busy(self) -> bool:
        return self.job is not None or self.abandoned is not None

    def wake(self) -> None:
        """Ends its parking, to look for a job."""
        self.woken = True
        self._unpark(stay=True)

    def leave(self) -> None:
        """Ends its parking for good."""
        self._unpark(stay=False)

    def end(self, reason: Reason) -> bool:
        """Ends the job that it runs; false if that is being ended already.

        A coroutine is cancelled and has its grace; a thread cannot be stopped, so its caller is
        freed; a process is killed.
        """
        job = self.job
        if job is None:
            return False
        if self.ending is not None:
            if reason is Reason.CLOSED and job.kind is _LOOP:
                self._cancel()  # once more: it may be stuck in tidying up after the first time
            return False
        self.ending = reason
        if job.kind is _THREAD:
            self._abandon()
            return True
        if job.kind is _LOOP:
            self._cancel()
        else:
            self._offload.kill(job)
        self._set_due(self._engine.now() + self._engine.cancel_grace_s)
        return True

    async def _work(self) -> None:  # noqa: C901, PLR0912, PLR0915 - one frame, for speed
        """Its life: the hot path of the pool (benchmarks/bench_pool.py)."""
        engine, now = self._engine, self._engine.now
        take = self._take_only if self.casual else engine.take
        completed, set_current = engine.completed, CURRENT.set
        cancelling = self.ended.cancelling
        fresh, now_s = True, now()
        until_s = now_s + _TURN_S
        while True:
            job = take(self)
            if job is None:
                if not await self._park():
                    await self._offload.end()
                    return
                fresh, now_s = True, now()
                until_s = now_s + _TURN_S
                continue
            if fresh:
                fresh = False
                if engine.backlog:
                    engine.crew.wake_others()
            self.job = job
            job.worker = self
            job.state = _RUNNING
            job.attempts += 1
            job.started_s = now_s  # when the one before it ended, if there was one
            if job.terms.timed:
                self._set_due(job.due_s(now_s))
            suspended = False
            try:
                if not (job.direct and engine.plain):
                    work = self._whole(job)
                elif job.kwargs is None:
                    work = job.function(*job.args)
                else:
                    work = job.function(*job.args, **job.kwargs)
                context = job.context
                context.run(set_current, job)
                try:
                    waited = context.run(work.send, None)
                except StopIteration as stop:
                    value = stop.value
                else:
                    suspended = True
                    value = await rest(context, work, waited)
            except GeneratorExit:  # the loop is gone, and everything with it
                raise
            except BaseException as error:  # whatever it is, it is the job's outcome
                now_s = self._raised(job, error)
                if isinstance(error, KeyboardInterrupt):
                    raise
            else:
                if self.job is job:
                    self.job = None
                    now_s = completed(job, value)
                else:
                    now_s = self._late()
            # The last: a job may have cancelled its own task, and never waited for that to come.
            if suspended or self._due_s is not _NEVER_S or self._cancels or cancelling():
                await self._calm_down()
                now_s = now()
            if suspended:
                until_s = now_s + _TURN_S
            elif now_s >= until_s:
                await asyncio.sleep(0)
                now_s = now()
                until_s = now_s + _TURN_S

    def spare(self) -> bool:
        """Its one job is not to be run; false if it has begun."""
        spared, self._only = self._only is not None, None
        return spared

    def _take_only(self, _: "Worker") -> AnyJob | None:
        only, self._only = self._only, None
        if only is None:
            return None
        job, begun = only
        if not begun.done():
            begun.set_result(None)
        self._engine.number(job)
        if job.timer is not None:
            job.timer.cancel()
            job.timer = None
        return job

    async def _whole(self, job: AnyJob) -> object:
        """One attempt with everything around it, in the job's context."""
        if self._engine.plugins:
            return await self._engine.plugins.run(job, self._offload.execute)
        return await self._offload.execute(job)

    def _raised(self, job: AnyJob, error: BaseException) -> float:
        """Settles an attempt that raised, or was made to."""
        if self.job is None:
            return self._late()
        self.job = None
        settle, ending = self._engine.settlement, self.ending
        if ending is not None:
            return settle.ended(job, ending, error)
        if isinstance(error, asyncio.CancelledError):
            assert self._task is not None
            if self._task.cancelling():
                return settle.worker_died(job, self._death("its task was cancelled"))
            return settle.ended(job, Reason.HANDLER, error)
        if job.kind is Kind.PROCESS and isinstance(error, ProcessDiedError):
            now_s = settle.worker_died(job, error)
            self._engine.process_died(self, error)
            return now_s
        return settle.failed(job, error)

    def _late(self) -> float:
        """A job came back that had its outcome already."""
        self.abandoned = None
        return self._engine.came_late()

    def _abandon(self) -> None:
        """Gives the job its outcome, while its function runs on and keeps this worker busy."""
        job = self.job
        assert job is not None
        assert self.ending is not None
        self.job, self.abandoned = None, job
        self._engine.settlement.abandoned(job, self.ending)
        self._engine.look()

    async def _calm_down(self) -> None:
        """Leaves nothing of a job's end to the next one.

        Raises:
            CancelledError: Somebody else has cancelled this task: the worker dies of it.
        """
        self.ending = None
        self._due_s = _NEVER_S
        task = self._task
        assert task is not None
        if self._cancels:
            while self._cancels:
                self._cancels -= 1
                task.uncancel()
            try:
                # One that had nothing to interrupt comes at the next wait: here, and not later.
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                if task.cancelling():
                    raise
        if task.cancelling():
            raise asyncio.CancelledError

    def _cancel(self) -> None:
        assert self._task is not None
        self._cancels += 1
        self._task.cancel()

    def _set_due(self, due_s: float) -> None:
        """Has the present job looked at at a time.

        The alarm of the job before is kept if it comes earlier, and then set again: most jobs end
        long before their timeout, and cost the heap of timers nothing.
        """
        self._due_s = due_s
        alarm = self._alarm
        if alarm is None or alarm.callback is None or alarm.at_s > due_s:
            if alarm is not None:
                alarm.cancel()
            self._alarm = self._engine.timers.at(due_s, self._overdue)

    def _overdue(self) -> None:
        if self._due_s is _NEVER_S or self.job is None:
            return
        now_s = self._engine.now()
        if now_s < self._due_s:
            self._set_due(self._due_s)
        elif self.ending is None:
            self.end(Reason.DEADLINE if self.job.is_past(now_s) else Reason.TIMEOUT)
        else:
            self._abandon()  # it has had its grace

    async def _park(self) -> bool:
        """Waits to be woken; false if it is to leave."""
        crew = self._engine.crew
        self.idle_since_s = self._engine.now()
        # Before it is known to be idle: it may be woken, or sent away, in the same breath.
        self._parked = self._engine.loop.create_future()
        if not crew.parks(self):
            self._parked = None
            return False
        try:
            stay = await self._parked
        finally:
            self._parked = None
        if self.woken:
            crew.came_awake(self)
        return stay

    def _unpark(self, *, stay: bool) -> None:
        if self._parked is not None and not self._parked.done():
            self._parked.set_result(stay)

    def _gone(self, task: asyncio.Task[None]) -> None:
        """Its task has ended: by order, by a cancel from outside, or by a fault of ours."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._offload.abort()
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        job, self.job = self.job, None
        if self._only is not None and not self._only[1].done():
            self._only[1].set_exception(self._death(repr(error)))
        if job is not None:
            self._engine.settlement.worker_died(job, self._death(repr(error)))
        self._engine.worker_gone(self, error)

    def _death(self, cause: str) -> WorkerDiedError:
        return WorkerDiedError(f"worker {self.number} died: {cause}")
