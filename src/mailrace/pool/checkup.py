"""Looks at a pool: its numbers and its health, gathered when somebody asks."""

import math
from collections.abc import Callable, Iterable
from reprlib import repr as short_repr
from typing import TYPE_CHECKING, Any, TypeVar

from mailrace.errors import UnavailableError
from mailrace.pool.asking import ask
from mailrace.pool.breaker_states import BreakerStanding, BreakerState
from mailrace.pool.health import Code, Health, HealthBook, Vitals, findings
from mailrace.pool.histogram import WindowedHistogram
from mailrace.pool.job import Job
from mailrace.pool.ledger import Ledger
from mailrace.pool.memory import Rung
from mailrace.pool.numbers import Numbers, Times

if TYPE_CHECKING:
    from mailrace.pool.engine import Engine
    from mailrace.pool.timers import Timer
    from mailrace.pool.worker import Worker

T = TypeVar("T")

_MINUTE_S = 60.0
_5_MINUTES_S = 300.0
# Whoever asks for the health leaves a timer behind that measures the loop's lag for the next one,
# and what was measured counts for so long.
_PROBE_S = 1.0
_LAG_LASTS_S = 10.0
# How long another thread waits for an answer; a loop that is silent for longer is blocked.
_ANSWER_S = 5.0
# So many jobs or breakers a reason names.
_NAMED_MAX = 3


class Checkup:
    """Works out numbers and health of one pool, for whoever asks in whatever thread.

    Everything is looked at on the pool's own loop, where nothing changes under the reader; also
    where another thread asks, which waits for the answer. Once the loop runs no more, nothing can
    change either.
    """

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._book = HealthBook()
        self._probe: Timer | None = None

    def ledger(self) -> Ledger:
        return self._on_loop(self._engine.ledger)

    def numbers(self) -> Numbers:
        return self._on_loop(self._numbers)

    def health(self) -> Health:
        return self._on_loop(self._health)

    def breakers(self) -> tuple[BreakerStanding, ...]:
        return self._on_loop(lambda: self._engine.gates.breakers(self._engine.now()))

    def _on_loop(self, look: Callable[[], T]) -> T:
        answer = ask(self._engine.loop, look)
        if answer is None:
            return look()
        try:
            return answer.result(_ANSWER_S)
        except TimeoutError:
            answer.cancel()
            raise UnavailableError(
                f"pool {self._engine.name} has not answered for {_ANSWER_S:g} s",
                hint="its event loop is blocked or has stopped: move blocking work to threads",
            ) from None

    def _numbers(self) -> Numbers:
        engine = self._engine
        books, crew = engine.books, engine.crew
        return Numbers(
            ledger=engine.ledger(),
            workers=len(crew),
            active=sum(worker.is_busy for worker in crew),
            idle=len(crew.idle) + crew.resting,
            abandoned=engine.abandoned_jobs,
            waiting_submits=engine.intake.waiting,
            spilled=len(engine.intake.spilled),
            queued_bytes=engine.intake.queued_bytes,
            retries=books.retries,
            timeouts=books.timeouts,
            late=books.late,
            plugin_faults=books.plugin_faults,
            deaths=books.deaths,
            scale_ups=crew.ups,
            scale_downs=crew.downs,
            last_scale_up_unix_s=self._unix_s(crew.last_up_s),
            last_scale_down_unix_s=self._unix_s(crew.last_down_s),
            dead_letters=len(books.dead),
            breakers_open=engine.gates.breakers_open(engine.now()),
            memory_used_bytes=engine.watch.used_bytes if engine.watch.limit_bytes else None,
            memory_limit_bytes=engine.watch.limit_bytes or None,
            pace=engine.gates.pace,
            wait=self._times(books.waits),
            run=self._times(books.runs),
        )

    def _health(self) -> Health:
        """How the pool is doing, with reasons that go away by themselves when they are over."""
        engine = self._engine
        found = findings(self._vitals(), engine.settings.health)
        probing = self._probe is not None and self._probe.callback is not None
        # A loop that does not run now has no time for timers, and no lag.
        if not (engine.closed or probing) and engine.loop.is_running():
            self._probe = engine.timers.at(engine.now() + _PROBE_S, _nothing)
        return self._book.update(found, engine.now(), engine.clock.unix_s())

    def _vitals(self) -> Vitals:
        engine, now_s = self._engine, self._engine.now()
        books, crew, watch = engine.books, engine.crew, engine.watch
        oldest = engine.backlog.oldest()
        failed = books.failures.total_at(now_s)
        lag_s = engine.timers.lag_s if now_s - engine.timers.rang_s < _LAG_LASTS_S else 0.0
        return Vitals(
            workers=len(crew),
            queued=len(engine.backlog) + len(engine.settlement.delayed),
            queue_max=engine.settings.queue_size,
            overflowing=len(engine.intake.spilled),
            oldest_wait_s=0.0 if oldest is None else now_s - oldest.queued_s,
            held_back=engine.dispatch.held_back,
            ended=failed + books.completed_lately(now_s),
            failed=failed,
            longest_run_s=max(
                (now_s - job.started_s for worker in crew if (job := worker.job)), default=0.0
            ),
            abandoned=engine.abandoned_jobs,
            worker_deaths=books.deaths_lately.total_at(now_s),
            breakers_open=engine.gates.breakers_open(now_s),
            memory_rung=watch.rung,
            memory_used_bytes=watch.used_bytes,
            memory_limit_bytes=watch.limit_bytes,
            loop_lag_s=lag_s,
            timer_late_s=max(0.0, engine.timers.late_s(now_s) - lag_s),
            paused_s=None if engine.paused_s is None else now_s - engine.paused_s,
            sources_stopped=1 if watch.rung >= Rung.STOP_SOURCES else 0,
            closed=engine.closed or not engine.intake.is_open,
            details=self._details(now_s),
        )

    def _details(self, now_s: float) -> dict[Code, str]:
        """What the numbers are about, by code; empty for what is not found."""
        engine = self._engine
        stuck_s = engine.settings.health.stuck_s.degraded
        running = [(worker, worker.job) for worker in engine.crew if worker.job]
        stuck = [(one, job) for one, job in running if now_s - job.started_s >= stuck_s]
        abandoned = [(one, one.abandoned) for one in engine.crew if one.abandoned]
        return {
            Code.STUCK: _jobs(stuck, now_s),
            Code.ABANDONED: _jobs(abandoned, now_s),
            Code.BREAKER_OPEN: _breakers(engine.gates.breakers(now_s)),
        }

    def _times(self, histogram: WindowedHistogram | None) -> Times | None:
        if histogram is None:
            return None
        now_s = self._engine.now()
        return Times(
            count=histogram.count,
            total_s=histogram.total_s,
            last_minute=histogram.summary(_MINUTE_S, now_s),
            last_5_minutes=histogram.summary(_5_MINUTES_S, now_s),
        )

    def _unix_s(self, at_s: float) -> float | None:
        if math.isinf(at_s):
            return None
        clock = self._engine.clock
        return clock.unix_s() - (clock.monotonic_s() - at_s)


def _jobs(found: Iterable[tuple["Worker", Job[Any]]], now_s: float) -> str:
    """Those that have run for longest, and how many more there are."""
    longest = sorted(found, key=lambda entry: entry[1].started_s)
    names = [f"job {job.id} ({job.name}) on worker {one.number}" for one, job in longest]
    lasts = [f"for {now_s - job.started_s:.0f} s" for _, job in longest]
    return _named([f"{name}, {last}" for name, last in zip(names, lasts, strict=True)])


def _breakers(found: Iterable[BreakerStanding]) -> str:
    wanting = [one for one in found if one.state is not BreakerState.CLOSED]
    return _named(
        ["the pool's" if one.of_pool else f"key {short_repr(one.key)}" for one in wanting]
    )


def _named(names: list[str]) -> str:
    more = len(names) - _NAMED_MAX
    return "; ".join([*names[:_NAMED_MAX], *([f"{more} more"] if more > 0 else [])])


def _nothing() -> None:
    """What a timer does that is only there to be late or not."""
