"""What a pool writes down: plain numbers, the dead letters, and who follows the outcomes."""

from collections import deque
from collections.abc import Callable
from typing import Any

from mailrace.pool.dead import DeadLetter, DeadLetters
from mailrace.pool.histogram import PENDING_MAX, WindowedHistogram
from mailrace.pool.job import Job
from mailrace.pool.outcome import Attempt, Reason
from mailrace.pool.states import JobState
from mailrace.pool.stream import Streams
from mailrace.pool.window import SlidingCount

AnyJob = Job[Any]
_MINUTE_S = 60.0
_SAMPLES = 13


class Books:
    """The counters of a pool. Only ever counted up; what is now is counted where it is.

    Attributes:
        ended: Jobs by final state.
        retries: Attempts that were followed by another one.
        timeouts: Attempts that took too long.
        late: Results that came after their job had ended.
        plugin_faults: Plugins that raised where they must not.
        deaths: Workers and processes that died.
        left: Times that may be noted before the next `turn`, which is at `turn_s` at the latest.
        waits: Seconds from submit to start; `None` if metrics are off.
        runs: Seconds that attempts took; `None` if metrics are off.
    """

    __slots__ = (
        "_samples",
        "accepted",
        "append_run",
        "append_wait",
        "completed",
        "dead",
        "deaths",
        "deaths_lately",
        "ended",
        "failures",
        "late",
        "left",
        "plugin_faults",
        "refused",
        "retries",
        "runs",
        "streams",
        "timeouts",
        "turn_s",
        "waits",
    )

    def __init__(
        self,
        *,
        dead_letters: int,
        metrics: bool,
        on_change: Callable[[], None],
        soon: Callable[[Callable[[], object]], None],
        unix_s: Callable[[], float],
    ) -> None:
        self.accepted = 0
        self.completed = 0
        self.refused = 0
        self.ended = dict.fromkeys(JobState, 0)
        self.retries = 0
        self.timeouts = 0
        self.late = 0
        self.plugin_faults = 0
        self.deaths = 0
        self.dead = DeadLetters(dead_letters, unix_s)
        self.streams = Streams(on_change, soon)
        self.failures = SlidingCount(_MINUTE_S)
        # How many had been completed at some times: samples, instead of work for every job.
        self._samples: deque[tuple[float, int]] = deque(maxlen=_SAMPLES)
        self.waits: WindowedHistogram | None = None
        self.runs: WindowedHistogram | None = None
        self.deaths_lately = SlidingCount(_MINUTE_S)
        self.turn_s = float("inf")
        self.left = 0
        self.change(dead_letters=dead_letters, metrics=metrics)

    def change(self, *, dead_letters: int, metrics: bool) -> None:
        """Keeps so many dead letters, and percentiles or none, from now on."""
        self.dead.change(dead_letters)
        if metrics and self.waits is None:
            self.waits, self.runs = WindowedHistogram(), WindowedHistogram()
            self.append_wait, self.append_run = self.waits.append, self.runs.append
            self.turn_s = float("-inf")
        elif not metrics:
            self.waits = self.runs = None

    def took(self, waited_s: float, ran_s: float, now_s: float) -> None:
        """Notes the times of an attempt that ended now."""
        if now_s >= self.turn_s or not self.left:
            self.turn(now_s)
        self.left -= 1
        self.append_wait(waited_s)
        self.append_run(ran_s)

    def turn(self, now_s: float) -> None:
        """Sorts the times in that were noted."""
        assert self.waits is not None
        assert self.runs is not None
        self.waits.turn(now_s)
        self.runs.turn(now_s)
        self.turn_s = self.runs.turn_s
        self.left = PENDING_MAX
        self._sample(now_s)

    def attempt_failed(
        self, job: AnyJob, error: BaseException, now_s: float, unix_s: float
    ) -> None:
        """Notes an attempt that did not bring the result, and what is told about it later."""
        if self.runs is not None:
            self.took(job.started_s - job.submitted_s, now_s - job.started_s, now_s)
        self.failures.add(now_s)
        self._sample(now_s)
        job.has_trouble(Reason.ERROR, error).attempts.append(
            Attempt(job.attempts, unix_s, now_s - job.started_s, type(error).__name__, text(error))
        )

    def completed_lately(self, now_s: float) -> int:
        """Attempts that brought their result in the last minute.

        A twelfth of it may be missing; without metrics, what was before the first failure too.
        """
        self._sample(now_s)
        lately = (count for at_s, count in self._samples if now_s - at_s < _MINUTE_S)
        return self.completed - next(lately, self.completed)

    def _sample(self, now_s: float) -> None:
        if not self._samples or now_s - self._samples[-1][0] >= _MINUTE_S / (_SAMPLES - 1):
            self._samples.append((now_s, self.completed))

    def worker_died(self, now_s: float) -> None:
        self.deaths += 1
        self.deaths_lately.add(now_s)

    def bury(self, job: AnyJob, reason: Reason, unix_s: float) -> None:
        """Keeps a job that failed for good among the dead letters."""
        attempts = job.failed_attempts
        last = attempts[-1] if attempts else None
        self.dead.add(
            DeadLetter(
                id=job.id,
                name=job.name,
                reason=reason,
                error_type=last.error_type if last else "",
                message=last.message if last else "",
                attempts=attempts,
                at_unix_s=unix_s,
                key=job.key,
                metadata=job.metadata,
                function=job.function,
                args=job.args,
                kwargs=job.kwargs,
                terms=job.terms,
                kind=job.kind,
            )
        )


def text(error: BaseException) -> str:
    """What an error says, also one that cannot say it."""
    try:
        return str(error)
    except Exception as fault:  # noqa: BLE001 - any class of anybody's
        return f"(its text cannot be had: {type(fault).__name__})"
