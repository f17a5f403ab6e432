"""Which job goes to which worker, and when: between the backlog and the start."""

from functools import partial
from typing import TYPE_CHECKING, Any

from mailrace.pool.gates import Scope
from mailrace.pool.job import Job

if TYPE_CHECKING:
    from collections.abc import Hashable

    from mailrace.pool.engine import Engine
    from mailrace.pool.timers import Timer
    from mailrace.pool.worker import Worker

AnyJob = Job[Any]


class Dispatch:
    """Hands waiting jobs to workers that ask, as far as limits and breakers let them through.

    Where these hold the whole pool there is one timer for everybody; where they hold a key, its
    jobs stay where they are and others pass them.
    """

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._backlog = engine.backlog
        self._hold: Timer | None = None
        self._key_holds: dict[Hashable, Timer] = {}

    @property
    def held_back(self) -> bool:
        """Whether something that is no worker keeps jobs from starting."""
        engine = self._engine
        return (
            self._hold is not None
            or bool(self._backlog.held)
            or engine.paused
            or engine.is_capped
            or engine.books.streams.stalled
            or (engine.gated and self._head_is_held)
        )

    @property
    def _head_is_held(self) -> bool:
        """Whether the next job would be held back, although nobody has asked for it yet."""
        head = self._backlog.head()
        return head is not None and self._engine.gates.holds(head, self._engine.now())

    def offer(self, job: AnyJob) -> None:
        """A job waits from now on."""
        self._backlog.push(job)
        crew = self._engine.crew
        if crew.idle:
            # One is enough: it wakes others if there is more than it can take at once.
            if not crew.waking and self._hold is None:
                crew.wake()
        elif crew.may_grow:
            crew.crowded()

    def take(self, worker: "Worker") -> AnyJob | None:
        """The job that a worker is to start now."""
        engine = self._engine
        if engine.attention and not engine.may_start(worker):
            return None
        job = self._pass_gates(worker) if engine.gated else self._backlog.pop()
        if job is not None and job.timer is not None:
            job = self._in_time(job)
        if job is None:
            return None
        intake = engine.intake
        if intake.pressed:
            intake.started(job)
            intake.relieve()
        else:
            intake.room += 1
        return job

    def _in_time(self, job: AnyJob | None) -> AnyJob | None:
        """The job, or the next one if it is too late for this one to start.

        A loop that was kept busy comes to its workers before it comes to its timers.
        """
        now_s = self._engine.now()
        while job is not None and job.timer is not None:
            # The gates have looked at the time, and given the job what it needs.
            if self._engine.gated or job.timer.at_s > now_s:
                job.timer.cancel()
                job.timer = None
                break
            self._backlog.unpop()
            self._engine.settlement.expire(job)
            job = self._backlog.pop()
        return job

    def wake(self) -> None:
        """Has a worker look at what waits, and others if it finds something."""
        engine = self._engine
        if (
            self._backlog
            and not engine.crew.waking
            and self._hold is None
            and not engine.paused
            and not engine.closed
        ):
            engine.crew.wake()

    def release(self) -> None:
        """Looks at the limits and breakers anew: something about them has changed."""
        if self._hold is not None:
            self._hold.cancel()
            self._hold = None
        for key in tuple(self._key_holds):
            self._key_holds.pop(key).cancel()
            self._backlog.release(key)
        self._engine.look_again()
        self.wake()

    def _pass_gates(self, worker: "Worker") -> AnyJob | None:
        """The first job that every limit and breaker lets through."""
        if self._hold is not None:
            return None
        engine, backlog = self._engine, self._backlog
        now_s = engine.now()
        while (job := backlog.head()) is not None:
            if job.timer is not None and job.timer.at_s <= now_s:
                engine.settlement.expire(job)
                continue
            hold = engine.gates.admit(job, worker, now_s)
            if hold is None:
                backlog.pop()
                return job
            until_s = now_s + hold.wait_s
            if hold.scope is Scope.KEY:
                self._hold_key(job.terms.key, until_s)
            elif hold.scope is Scope.WORKER:
                engine.crew.rest(worker, until_s)
                engine.crew.wake()
                return None
            else:
                self._hold = engine.timers.at(until_s, self._hold_is_over)
                return None
        return None

    def _hold_is_over(self) -> None:
        self._hold = None
        self.wake()

    def _hold_key(self, key: "Hashable", until_s: float) -> None:
        self._backlog.hold(key)
        self._key_holds[key] = self._engine.timers.at(until_s, partial(self._key_is_free, key))

    def _key_is_free(self, key: "Hashable") -> None:
        del self._key_holds[key]
        self._backlog.release(key)
        self.wake()
