"""The workers of a pool: how many there are, who is idle, and who comes and goes."""

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from mailrace.pool.happenings import Scaled
from mailrace.pool.job import Job
from mailrace.pool.scaler import Scaler
from mailrace.pool.scaling import NEVER_S, ScaleReason, ScalingSettings
from mailrace.pool.worker import Worker

if TYPE_CHECKING:
    from mailrace.pool.engine import Engine
    from mailrace.pool.timers import Timer

AnyJob = Job[Any]

# Workers that die of what they begin with would otherwise die and come without end.
_DEATHS_MAX = 10
_RESPITE_S = 1.0


class Crew:
    """Workers are tasks, and the number of tasks is the number of workers.

    A worker that has nothing to do is parked on a stack, so that the one used last is used next
    and the others may grow old and leave.

    Attributes:
        size: How many there should be. Fewer are there only until the next job needs one, more
            only until they have done what they hold.
        may_grow: A job that finds nobody idle is a reason to think of more workers.
        waking: Workers that were woken and have not looked for a job yet.
        idle: Those that are parked, the longest idle first.
        resuming: What jobs wait for that have waited for another one and want their place back, by
            job: several tasks of one job have one place between them.
    """

    def __init__(self, engine: "Engine", settings: ScalingSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._workers: dict[int, Worker] = {}
        self._numbers = 0
        self.resuming: dict[int, asyncio.Future[None]] = {}
        self.scaler = Scaler(engine, self, settings)
        self._respite: Timer | None = None
        self.size = 0
        self.idle: list[Worker] = []
        self.may_grow = True
        self.waking = 0
        self._waits: dict[int, int] = {}
        self._claims: dict[int, int] = {}
        self._casual = 0
        self._relieved = 0
        self._leaving = 0
        self._resting: dict[Worker, Timer] = {}
        self.ups = 0
        self.downs = 0
        self.last_up_s = NEVER_S
        self.last_down_s = NEVER_S

    def __len__(self) -> int:
        return len(self._workers)

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    @property
    def active(self) -> int:
        """Jobs that really run: without those that wait for others, or for their place back."""
        busy = sum(worker.is_busy and not worker.casual for worker in self._workers.values())
        return busy - len(self._waits.keys() | self.resuming.keys())

    @property
    def lent(self) -> int:
        """Jobs that wait for another one: their places are filled by others meanwhile."""
        return len(self._waits)

    @property
    def resting(self) -> int:
        """Workers that wait for their own limit."""
        return len(self._resting)

    @property
    def surplus(self) -> int:
        """Workers there are above what there should be."""
        return len(self._workers) - self._casual - self._leaving - self.lent - self.size

    @property
    def restless(self) -> bool:
        """Whether workers have to ask before they take another job."""
        return bool(self.resuming) or self.surplus > 0 or self._relieved > 0

    def crowded(self) -> None:
        """A job found nobody idle."""
        if self.surplus < 0:
            self._hire()
        else:
            self.scaler.is_short()

    def start(self) -> None:
        """Brings in the least number of workers."""
        self.size = self._settings.workers_min
        self._fill()

    def wake(self) -> None:
        """Has one more worker look for a job."""
        if self.idle:
            self.waking += 1
            self.idle.pop().wake()
        elif self.surplus < 0:
            self._hire()
        elif self.may_grow and not self.waking:
            self.scaler.is_short()

    def came_awake(self, worker: Worker) -> None:
        """A worker that was woken looks for a job."""
        worker.woken = False
        self.waking -= 1

    def wake_others(self) -> None:
        """A worker that was woken has found a job, and there are more.

        Two wake-ups for each that was of use: all workers are awake after a few turns of the
        loop if there is work for all, and hardly one too many if there is not.
        """
        self.wake()
        if self.waking < len(self._engine.backlog):
            self.wake()

    def resume(self) -> None:
        """Lets jobs that have waited for others go on, as far as there are places."""
        while self.resuming and (self.active < self.size or self._engine.closed):
            turn = self.resuming.pop(next(iter(self.resuming)))
            if not turn.done():
                turn.set_result(None)

    def may_take(self, worker: Worker) -> bool:
        """Whether a worker may take one more job."""
        self.resume()
        return not worker.relieved and self.active < self.size

    async def lend(self, job: AnyJob, waiting: asyncio.Future[Any]) -> Any:
        """Waits on behalf of a running job, whose place another worker fills meanwhile.

        Without that a pool whose jobs wait for jobs of their own would stand still. The job goes
        on when there is a place for it again, so that never more jobs run than there are places.
        """
        self._waits[job.id] = self._waits.get(job.id, 0) + 1
        self._engine.look()
        try:
            return await waiting
        finally:
            self._waits[job.id] -= 1
            if not self._waits[job.id]:
                del self._waits[job.id]
            self._engine.look()
            if self._must_wait_for_place(job):
                await self._get_place_back(job)

    def _must_wait_for_place(self, job: AnyJob) -> bool:
        if job.id in self.resuming:
            return True
        # What is being ended has its grace, and better things to do with it than to wait.
        ending = job.worker is None or job.worker.ending is not None
        return self.active > self.size and not ending

    async def _get_place_back(self, job: AnyJob) -> None:
        turn = self.resuming.get(job.id)
        if turn is None:
            turn = self.resuming[job.id] = asyncio.get_running_loop().create_future()
            self._engine.look()
        self._claims[job.id] = self._claims.get(job.id, 0) + 1
        try:
            await asyncio.shield(turn)
        finally:
            self._claims[job.id] -= 1
            if not self._claims[job.id]:  # the last one: its other tasks wait for it no more
                del self._claims[job.id]
                if self.resuming.get(job.id) is turn:
                    del self.resuming[job.id]
                    turn.cancel()
            self._engine.look()

    def casual(self, job: AnyJob, begun: asyncio.Future[None]) -> Worker:
        """A worker for one job only, beside the others; `join` brings it in.

        Args:
            begun: Tells that it has accepted the job.
        """
        self._numbers += 1
        return Worker(self._engine, self._numbers, only=(job, begun))

    def join(self, worker: Worker) -> None:
        """Brings a casual worker in."""
        self._workers[worker.number] = worker
        self._casual += 1
        worker.start()

    def rest(self, worker: Worker, until_s: float) -> None:
        """A worker's own limit is used up until then."""
        self._resting[worker] = self._engine.timers.at(until_s, partial(self._rested, worker))

    def end_rests(self) -> None:
        """The limits of workers are others now: those that wait for theirs look again."""
        for worker in tuple(self._resting):
            self._resting[worker].cancel()
            self._rested(worker)

    def _rested(self, worker: Worker) -> None:
        del self._resting[worker]
        self.waking += 1
        worker.wake()

    def parks(self, worker: Worker) -> bool:
        """A worker has nothing to do: false if it is to leave."""
        if worker.casual or worker.relieved or self.surplus > 0 or self._engine.closed:
            if worker in self._resting:
                self._resting.pop(worker).cancel()
            self._leaves(worker)
            return False
        if worker in self._resting:
            return True
        self.idle.append(worker)
        if self.size > self._settings.workers_min:
            self.scaler.is_idle()
        return True

    def change(self, settings: ScalingSettings) -> None:
        """Goes on between other bounds; at once where the number is outside them."""
        self._settings = settings
        self._engine.look()
        self.scaler.change(settings)  # brings the number between them

    def scale(self, change: int) -> int:
        """So many workers more or less, within the bounds; returns how many there should be."""
        least, most = self._settings.workers_min, self._settings.workers_max
        self.resize(min(max(self.size + change, least), most), ScaleReason.BY_HAND)
        return self.size

    def resize(self, size: int, reason: ScaleReason) -> None:
        """Hires at once; lets the longest idle go at once, busy ones after their job."""
        now_s, before = self._engine.now(), self.size
        if size > self.size:
            self.ups += 1
            self.last_up_s = now_s
        elif size < self.size:
            self.downs += 1
            self.last_down_s = now_s
        self.size = size
        self._fill()
        self._dismiss([*self.idle, *self._resting][: max(0, self.surplus)])
        self._engine.look()
        if size != before:
            # Last, and of what was asked for: a follower may raise, or change the number again.
            pool = self._engine.name
            self._engine.events.emit(Scaled(pool=pool, workers=size, before=before, reason=reason))

    def restart(self) -> None:
        """Has all leave, those that hold a job after it, and hires others in their place."""
        for worker in self._workers.values():
            self._relieved += not worker.relieved
            worker.relieved = True
        self._dismiss([*self.idle, *self._resting])
        self._engine.look()

    def close(self) -> None:
        """Tells everyone to leave."""
        self.scaler.close()
        self._dismiss([*self.idle, *self._resting])

    def _dismiss(self, leaving: list[Worker]) -> None:
        """Has workers leave that are parked; they count no more from now on."""
        for worker in leaving:
            if worker in self._resting:
                self._resting.pop(worker).cancel()
            else:
                self.idle.remove(worker)
            self._leaves(worker)
            worker.leave()

    def _leaves(self, worker: Worker) -> None:
        """Counts a worker out whose task is about to end: others must not leave in its stead."""
        if not worker.leaving and not worker.casual:
            worker.leaving = True
            self._leaving += 1

    def gone(self, worker: Worker, *, died: bool = False) -> None:
        """A worker's task has ended, as it was told or not."""
        del self._workers[worker.number]
        self._casual -= worker.casual
        self._relieved -= worker.relieved
        self._leaving -= worker.leaving
        self.waking -= worker.woken
        if worker in self.idle:
            self.idle.remove(worker)
        if worker in self._resting:
            self._resting.pop(worker).cancel()
        if not self._engine.closed:
            if died and self._respite is None and self._deaths_lately > _DEATHS_MAX:
                at_s = self._engine.now() + _RESPITE_S
                self._respite = self._engine.timers.at(at_s, self._recover)
            if worker.relieved or died:
                self._fill()
            self._engine.look()

    @property
    def _deaths_lately(self) -> float:
        return self._engine.books.deaths_lately.total_at(self._engine.now())

    def _recover(self) -> None:
        self._respite = None
        self._fill()
        self._engine.look()

    def look(self) -> None:
        """The number of workers, wanted or real, has changed."""
        self.may_grow = self.size < self._settings.workers_max or self.surplus < 0
        if self.idle and self.surplus > 0:  # places that were lent are back
            self._dismiss(self.idle[: self.surplus])

    def _fill(self) -> None:
        while self.surplus < 0 and self._may_hire:
            self._hire()

    @property
    def _may_hire(self) -> bool:
        return self._respite is None and not self._engine.closed

    def _hire(self) -> None:
        if not self._may_hire:
            return
        self._numbers += 1
        worker = Worker(self._engine, self._numbers)
        self._workers[worker.number] = worker
        worker.start()
