"""Asks, at the right moments and no others, how many workers a pool should have."""

from typing import TYPE_CHECKING

from mailrace.pool.scaling import Load, ScalingSettings, decide

if TYPE_CHECKING:
    from mailrace.pool.crew import Crew
    from mailrace.pool.engine import Engine
    from mailrace.pool.timers import Timer


class Scaler:
    """Decides when something has happened that can change the answer, and sets one timer else.

    An idle pool at its minimum has no timer.
    """

    def __init__(self, engine: "Engine", crew: "Crew", settings: ScalingSettings) -> None:
        self._engine = engine
        self._crew = crew
        self._settings = settings
        self._timer: Timer | None = None

    def is_short(self) -> None:
        """A job waits and nobody is idle."""
        if len(self._engine.backlog) == self._settings.up_at:
            self.decide()
        else:
            self._decide_within(self._settings.up_wait_s)

    def is_idle(self) -> None:
        """A worker that need not be there has nothing to do."""
        self._decide_within(self._settings.idle_s)

    def change(self, settings: ScalingSettings) -> None:
        """Goes on by other settings."""
        self._settings = settings
        self.decide()

    def decide(self) -> None:
        """Decides, does it, and sets when to ask again."""
        self.close()
        engine = self._engine
        if engine.closed:
            return
        now_s = engine.now()
        scale = decide(self._settings, self._load(now_s), now_s)
        if scale.again_s is not None:
            self._timer = engine.timers.at(now_s + scale.again_s, self._ask_again)
        if scale.change:
            self._crew.resize(self._crew.size + scale.change, scale.reason)

    def close(self) -> None:
        """Asks no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _decide_within(self, patience_s: float) -> None:
        """Decides now if nothing is set, and otherwise no later than in so many seconds.

        What is set may be for the other direction, and far away.
        """
        if self._timer is None:
            self.decide()
            return
        due_s = self._engine.now() + patience_s
        if self._timer.at_s > due_s:
            self._timer.cancel()
            self._timer = self._engine.timers.at(due_s, self._ask_again)

    def _ask_again(self) -> None:
        self._timer = None
        self.decide()

    def _load(self, now_s: float) -> Load:
        engine, crew = self._engine, self._crew
        idle_s = [now_s - worker.idle_since_s for worker in crew.idle]
        oldest = engine.backlog.oldest()
        return Load(
            workers=crew.size,
            idle=len(idle_s),
            longest_idle_s=max(idle_s, default=0.0),
            overdue=sum(span_s >= self._settings.idle_s for span_s in idle_s),
            queued=len(engine.backlog),
            oldest_wait_s=0.0 if oldest is None else now_s - oldest.queued_s,
            held_back=engine.dispatch.held_back,
            last_up_s=crew.last_up_s,
            last_down_s=crew.last_down_s,
        )
