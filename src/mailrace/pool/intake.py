"""The way into a pool: bounds, what happens when they are reached, and who waits for room."""

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from mailrace.errors import MisuseError
from mailrace.pool.errors import PoolClosedError, PoolFullError
from mailrace.pool.job import Job
from mailrace.pool.line import Ask, Line
from mailrace.pool.memory import Rung
from mailrace.pool.outcome import Reason
from mailrace.pool.settings import Overflow, PoolSettings

if TYPE_CHECKING:
    import asyncio

    from mailrace.pool.engine import Engine

AnyJob = Job[Any]
_SIZED: Final = (bytes, bytearray, str)
_FULL_HINT: Final = "submit later, wait for room, or raise queue_size"


class Intake:
    """Lets jobs in while there is room, in the order of asking inside a priority.

    Attributes:
        room: Places left in the queue. Retries come back without asking, so that it may be below
            zero for a while, by no more than there are workers.
        pressed: A job cannot simply be let in: something has to be looked at first.
        spilled: The overflow buffer, the oldest first.
    """

    def __init__(self, engine: "Engine", settings: PoolSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._line = Line()
        self._bytes = 0
        # Jobs whose place is taken and whose submitter has not come to use it.
        self._coming: set[AnyJob] = set()
        self._open = True
        self._held = False
        self.spilled: OrderedDict[int, AnyJob] = OrderedDict()
        self.room = settings.queue_size
        self.pressed = settings.queue_bytes is not None

    @property
    def waiting(self) -> int:
        """Submits that wait for room."""
        return len(self._line)

    @property
    def queued_bytes(self) -> int:
        return self._bytes

    def let_in_at_once(self, job: AnyJob) -> bool:
        """Lets a job in if nothing has to be looked at for that: nearly always."""
        if self.room <= 0 or self.pressed:
            return False
        self.room -= 1
        self._engine.accept(job)
        return True

    async def submit(self, job: AnyJob, *, wait: bool = False) -> None:
        """Lets a job in by the pool's overflow policy, or waits for room in any case.

        Raises:
            PoolClosedError: The pool takes no jobs.
            PoolFullError: There is no room, and the policy is not to wait, or not for so long.
        """
        if self._let_in(job):
            return
        match Overflow.WAIT if wait else Overflow(self._settings.overflow):
            case Overflow.WAIT:
                await self._wait(job)
            case Overflow.CALLER_RUNS if self._callers_may_run:
                await self._engine.run_for_caller(job)
            case _:
                self._make_room(job)

    def submit_nowait(self, job: AnyJob) -> None:
        """The same without waiting: where the policy is to wait, a full queue refuses.

        Raises:
            PoolClosedError: The pool takes no jobs.
            PoolFullError: There is no room.
        """
        if not self._let_in(job):
            self._make_room(job)

    def ask(self, job: AnyJob, admit: Callable[[Exception | None], bool]) -> Ask:
        """Puts somebody in line for room."""
        ask = Ask(job, admit)
        turn_s = self._engine.now() - job.terms.level * self._engine.backlog.ageing_s
        self._line.join(ask, turn_s)
        self.look()  # it may come before somebody who needs more room
        return ask

    def leave(self, ask: Ask) -> None:
        """Somebody waits no longer; nothing is enqueued."""
        self._line.leave(ask)
        self.relieve()  # it may have stood before somebody who needs less room

    def enter(self, job: AnyJob) -> None:
        """Enqueues a job whose place is taken already."""
        self._coming.discard(job)
        self._engine.accept(job)

    def give_back(self, job: AnyJob) -> None:
        """A place that was taken is not used."""
        self._coming.discard(job)
        self.started(job)
        self.relieve()

    def withdraw(self, job: AnyJob) -> None:
        """A waiting job leaves by another way than to a worker."""
        if self.spilled.pop(job.id, None) is None:
            self._engine.backlog.withdrawn()
            self.started(job)

    def started(self, job: AnyJob) -> None:
        """A job has left the queue."""
        self.room += 1
        self._bytes -= self._size(job)

    def take_place(self, job: AnyJob) -> None:
        """Counts a job as one that waits: a retry does not ask, all others know that it fits."""
        self.room -= 1
        self._bytes += self._size(job)

    def relieve(self) -> None:
        """Fills the room that there is: from the overflow buffer first, then with who waits."""
        if not self.pressed:
            return
        while self.spilled and self._fits(next(iter(self.spilled.values()))):
            _, job = self.spilled.popitem(last=False)
            self.take_place(job)
            job.queued_s = self._engine.now()
            self._engine.dispatch.offer(job)
        while not self.spilled and (ask := self._line.head()) and self._admits(ask.job):
            self._line.serve()
            if ask.admit(None):
                self.take_place(ask.job)
                self._coming.add(ask.job)
        self._look()

    def hold(self, *, held: bool) -> None:
        """Lets nobody in for now, or again."""
        self._held = held
        self.look()

    def close(self) -> None:
        """Lets nobody in any more; who waits is told."""
        self._open = False
        self.pressed = True
        for ask in self._line.dissolve():
            ask.admit(_closed())
        self._engine.look_again()

    def change(self, settings: PoolSettings) -> None:
        """Goes on with other bounds: smaller ones refuse what is new and evict nothing."""
        self.room += settings.queue_size - self._settings.queue_size
        self._settings = settings
        delayed = self._engine.settlement.delayed.values()
        waiting = (*self._engine.backlog.jobs(), *delayed, *self._coming)
        self._bytes = sum(map(self._size, waiting))
        self.look()

    @property
    def is_open(self) -> bool:
        """Whether the pool is not closing yet."""
        return self._open

    def check_open(self) -> None:
        """Refuses everything once the pool closes.

        Raises:
            PoolClosedError: It does.
        """
        if not self._open:
            raise _closed()

    def _let_in(self, job: AnyJob) -> bool:
        self.check_open()
        # What has run out leaves before anybody is turned away for it.
        self._engine.timers.run_due()
        if self._line or self.spilled or not self._admits(job):
            return False
        self.take_place(job)
        self.enter(job)
        return True

    @property
    def _callers_may_run(self) -> bool:
        """Whether a job may start at once although the queue is full."""
        engine = self._engine
        return not self._held and not engine.paused and engine.watch.rung < Rung.REFUSE

    def _admits(self, job: AnyJob) -> bool:
        return not self._held and self._engine.watch.rung < Rung.REFUSE and self._fits(job)

    def _fits(self, job: AnyJob) -> bool:
        most = self._settings.queue_bytes
        # Alone goes also what was asked for before the bound became as small as it is.
        return self.room > 0 and (
            most is None or not self._bytes or self._bytes + self._size(job) <= most
        )

    async def _wait(self, job: AnyJob) -> None:
        engine = self._engine
        admitted: asyncio.Future[Exception | None] = engine.loop.create_future()

        def admit(error: Exception | None) -> bool:
            if admitted.done():
                return False
            admitted.set_result(error)
            return True

        ask = self.ask(job, admit)
        wait_s = job.terms.wait_s
        late = PoolFullError(f"there was no room within {wait_s} s", hint=_FULL_HINT)
        timer = (
            None if wait_s is None else engine.timers.at(engine.now() + wait_s, lambda: admit(late))
        )
        try:
            error = await engine.blocked(admitted)
        except BaseException:
            # A place may have come in the very turn in which this was cancelled.
            if admitted.done() and not admitted.cancelled() and admitted.result() is None:
                self.give_back(job)
            else:
                self.leave(ask)
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if error is None and self._open:
            self.enter(job)
        elif error is None:
            self.give_back(job)
            self._refuse(_closed())
        else:
            self.leave(ask)
            self._refuse(error)

    def _make_room(self, job: AnyJob) -> None:
        """Makes room as the policy says, or refuses."""
        policy = Overflow(self._settings.overflow)
        if self._engine.watch.rung >= Rung.REFUSE:
            self._refuse(PoolFullError("memory runs short", hint="submit later"))
        if self._held:
            self._refuse(PoolFullError("the pool is paused and takes no jobs", hint="resume it"))
        if policy is Overflow.SPILL and len(self.spilled) < self._settings.overflow_size:
            self._engine.number(job)
            self.spilled[job.id] = job
            self._look()
            return
        victims = self._victims(job, policy)
        if not victims:
            self._refuse(
                PoolFullError(
                    f"the queue is full: {len(self._engine.backlog)} jobs wait, "
                    f"{len(self._engine.settlement.delayed)} for their next attempt",
                    hint=_FULL_HINT,
                )
            )
        # First the place, so that nobody else who waits for one gets it.
        self.take_place(job)
        for victim in victims:
            if not victim.done():  # what follows from the end of one may be the end of another
                self._engine.settlement.drop(victim, Reason.OVERFLOW)
        self.enter(job)

    def _victims(self, job: AnyJob, policy: Overflow) -> list[AnyJob]:
        """Whom to drop for a job: so many that it fits, or nobody at all."""
        backlog = self._engine.backlog
        if policy is Overflow.DROP_OLDEST:
            first = backlog.oldest()
        elif policy is Overflow.DROP_LOWEST:
            first = backlog.lowest()
            if first is not None and first.terms.level >= job.terms.level:
                return []
        else:
            return []
        if first is None or (self.room >= 0 and self._settings.queue_bytes is None):
            return [] if first is None else [first]
        return self._enough(job, policy)

    def _enough(self, job: AnyJob, policy: Overflow) -> list[AnyJob]:
        """As many as it takes: rare, where jobs are of unlike sizes or the queue is overfull."""
        jobs = sorted(self._engine.backlog.jobs(), key=lambda job: (job.queued_s, job.id))
        if policy is Overflow.DROP_LOWEST:
            level = job.terms.level
            jobs = [other for other in reversed(jobs) if other.terms.level < level]
            jobs.sort(key=lambda job: job.terms.level)
        most = self._settings.queue_bytes
        room, left = self.room, 0 if most is None else most - self._bytes - self._size(job)
        victims: list[AnyJob] = []
        for victim in jobs:
            if room > 0 and left >= 0:
                break
            victims.append(victim)
            room += 1
            left += self._size(victim)
        return victims if room > 0 and left >= 0 else []

    def _refuse(self, error: Exception) -> None:
        self._engine.books.refused += 1
        raise error

    def _size(self, job: AnyJob) -> int:
        return 0 if self._settings.queue_bytes is None else size_of(job)

    def look(self) -> None:
        """Something changed that decides who may come in."""
        self.pressed = True
        self.relieve()

    def _look(self) -> None:
        self.pressed = (
            bool(self._line)
            or bool(self.spilled)
            or not self._open
            or self._held
            or self._settings.queue_bytes is not None
            or self._engine.watch.rung >= Rung.REFUSE
        )


def size_of(job: AnyJob) -> int:
    """What a waiting job occupies: as declared, or its arguments that are bytes or text."""
    if job.terms.size_bytes is not None:
        return job.terms.size_bytes
    values = job.args if job.kwargs is None else (*job.args, *job.kwargs.values())
    size_bytes = 0
    for value in values:
        if isinstance(value, _SIZED):
            size_bytes += len(value)
    return size_bytes


def check_size(job: AnyJob, settings: PoolSettings) -> None:
    """Refuses what would not even fit into an empty queue.

    Raises:
        MisuseError: It is larger than all the queue may hold.
    """
    most = settings.queue_bytes
    if most is not None and (size := size_of(job)) > most:
        raise MisuseError(
            f"the job is {size} bytes, and queue_bytes is {most}",
            hint="raise queue_bytes, or hand over a reference instead of the data",
        )


def _closed() -> PoolClosedError:
    return PoolClosedError("the pool is closed", hint="submit to a pool that is open")
