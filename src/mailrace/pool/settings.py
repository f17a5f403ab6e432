"""The settings of a pool: frozen, complete, and valid as a whole or not at all."""

import dataclasses
import difflib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Self, TypedDict, Unpack

from mailrace.errors import MisuseError, RejectedError
from mailrace.pool.allowance import Allowance
from mailrace.pool.breaker import BreakerSettings
from mailrace.pool.budget import RetryBudget
from mailrace.pool.health import HealthSettings
from mailrace.pool.memory import MemorySettings
from mailrace.pool.options import Duration, JobOptions, seconds
from mailrace.pool.pace import PaceSettings
from mailrace.pool.ranges import are_errors, check_whole
from mailrace.pool.rate import Rate, RateLimit
from mailrace.pool.scaling import ScalingSettings


class Overflow(StrEnum):
    """What a submit does when the queue is full."""

    WAIT = "wait"
    REFUSE = "refuse"
    DROP_OLDEST = "drop oldest"
    DROP_LOWEST = "drop lowest"
    CALLER_RUNS = "caller runs"
    SPILL = "spill"


class SettingChanges(TypedDict, total=False):
    """The fields of `PoolSettings`, as keyword arguments; `workers` sets both bounds."""

    workers: int
    workers_min: int
    workers_max: int
    queue_size: int
    queue_bytes: int | None
    overflow: (
        Overflow | Literal["wait", "refuse", "drop oldest", "drop lowest", "caller runs", "spill"]
    )
    overflow_size: int
    ageing: Duration
    fair_keys: bool
    job: JobOptions
    rate: Allowance | RateLimit | Rate | str | None
    key_rate: RateLimit | Rate | str | None
    worker_rate: RateLimit | Rate | str | None
    pace: PaceSettings | None
    breaker: BreakerSettings | None
    key_breaker: BreakerSettings | None
    breaker_ignores: tuple[type[BaseException], ...]
    retry_budget: RetryBudget | None
    idle_timeout: Duration
    scale_up_at: int
    scale_up_wait: Duration
    scale_down_at: int
    scale_up_cool_down: Duration
    scale_down_cool_down: Duration
    cancel_grace: Duration
    abandoned_max: int | None
    recycle_after: int | None
    process_memory_max_bytes: int | None
    metrics: bool
    dead_letters: int
    memory: MemorySettings | None
    health: HealthSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """Everything that can be set of a pool. Time spans are seconds or `timedelta`s.

    The defaults are those of the default profile; `high_performance` and `resource_constrained`
    are the two others.

    Attributes:
        workers_min: Workers that are always there.
        workers_max: Workers at most: jobs that run at the same time. One means strictly one job
            at a time.
        queue_size: Jobs that may wait, those that wait for a retry included. A retry is never
            refused for want of room, so up to `workers_max` more can come back.
        queue_bytes: What they may occupy together; `None`: unbounded.
        overflow: What a submit does when the queue is full: `wait` for room, `refuse`, `drop
            oldest`, `drop lowest` (the latest of the lowest priority, if that is lower than the
            new one's), `caller runs` (the submit itself runs the job), `spill` (into the overflow
            buffer; refused when that is full too).
        overflow_size: Jobs in the overflow buffer.
        ageing: A job that has waited so much longer than one of the next higher priority goes
            first.
        fair_keys: Keys take turns. Always so with `key_rate` or `key_breaker`.
        job: What a job gets that was submitted without options.
        rate: Limit on starts over all workers, such as "10/s, 500/min": every window holds
            wherever it is laid. An `Allowance` instead is one limit for several pools of a loop.
        key_rate: The same for the jobs of each key.
        worker_rate: The same for each worker.
        pace: How far `rate` gives way when handlers report that the far side slows them down;
            `None`: not at all.
        breaker: Circuit breaker over all jobs.
        key_breaker: One for the jobs of each key.
        breaker_ignores: Errors that say nothing about the far side's health.
        retry_budget: Bound on retries over all jobs, of several pools if they share the object;
            `None`: each job's own policy only.
        idle_timeout: A worker above `workers_min` leaves after so long without a job.
        scale_up_at: So many waiting jobs ask for another worker.
        scale_up_wait: So does a job that has waited so long.
        scale_down_at: No worker leaves unless so many are idle.
        scale_up_cool_down: At least so long between two steps up.
        scale_down_cool_down: At least so long from any step to a step down.
        cancel_grace: A coroutine that is cancelled has so long to clean up; then its caller is
            freed, and its worker counted as busy until it does end.
        abandoned_max: So many jobs may run on after their end; while there are as many, no job
            starts. `None`: no more than there are workers, since each keeps one busy.
        recycle_after: Calls after which a worker's process is replaced; `None`: never.
        process_memory_max_bytes: Resident memory above which it is replaced, between two jobs.
        metrics: Keep percentiles and means; counters are always kept.
        dead_letters: Failed jobs that are kept; the oldest give way.
        memory: Limits on the process's memory and what follows from them; `None`: none.
        health: When the pool calls itself degraded or unhealthy.
    """

    workers_min: int = 2
    workers_max: int = 10
    queue_size: int = 100
    queue_bytes: int | None = None
    overflow: (
        Overflow | Literal["wait", "refuse", "drop oldest", "drop lowest", "caller runs", "spill"]
    ) = Overflow.WAIT
    overflow_size: int = 1000
    ageing: Duration = 30.0
    fair_keys: bool = False
    job: JobOptions = field(default_factory=JobOptions)
    rate: Allowance | RateLimit | Rate | str | None = None
    key_rate: RateLimit | Rate | str | None = None
    worker_rate: RateLimit | Rate | str | None = None
    pace: PaceSettings | None = None
    breaker: BreakerSettings | None = None
    key_breaker: BreakerSettings | None = None
    breaker_ignores: tuple[type[BaseException], ...] = (RejectedError, MisuseError)
    retry_budget: RetryBudget | None = None
    idle_timeout: Duration = 30.0
    scale_up_at: int = 5
    scale_up_wait: Duration = 1.0
    scale_down_at: int = 2
    scale_up_cool_down: Duration = 5.0
    scale_down_cool_down: Duration = 10.0
    cancel_grace: Duration = 5.0
    abandoned_max: int | None = None
    recycle_after: int | None = None
    process_memory_max_bytes: int | None = None
    metrics: bool = True
    dead_letters: int = 1000
    memory: MemorySettings | None = None
    health: HealthSettings = field(default_factory=HealthSettings)

    def __post_init__(self) -> None:
        for name in _COUNTS:
            check_whole(name, getattr(self, name), least=1)
        for name in ("dead_letters", "overflow_size"):
            check_whole(name, getattr(self, name), least=0)
        for name in ("queue_bytes", "abandoned_max", "recycle_after", "process_memory_max_bytes"):
            value = getattr(self, name)
            if value is not None:
                check_whole(name, value, least=1)
        for name in _DURATIONS:
            seconds(getattr(self, name), name)
        if self.overflow not in tuple(Overflow):
            raise MisuseError(f"overflow is {self.overflow!r}", hint=_overflow_hint(self.overflow))
        self._check_parts()
        if self.pace is not None and self.rate is None:
            raise MisuseError("pace is set, but rate is not", hint="set the rate that it adapts")
        self.scaling()  # checks what belongs together

    @classmethod
    def high_performance(cls) -> Self:
        """5 to 50 workers, a queue of 1,000, workers that stay a minute."""
        return cls(
            workers_min=5,
            workers_max=50,
            queue_size=1000,
            idle_timeout=60.0,
            scale_up_at=10,
            scale_down_at=3,
            scale_up_cool_down=2.0,
            scale_down_cool_down=15.0,
        )

    @classmethod
    def resource_constrained(cls) -> Self:
        """1 to 5 workers, a queue of 50, no percentiles."""
        return cls(
            workers_min=1,
            workers_max=5,
            queue_size=50,
            idle_timeout=15.0,
            scale_up_at=3,
            scale_down_at=1,
            scale_up_cool_down=10.0,
            scale_down_cool_down=5.0,
            metrics=False,
        )

    def changed(self, **changes: Unpack[SettingChanges]) -> Self:
        """These settings with some of them changed; `workers` sets both bounds.

        Raises:
            MisuseError: A setting is unknown or wrong, or they do not fit together.
        """
        values: dict[str, Any] = dict(changes)
        if "workers" in values:
            count = values.pop("workers")
            values = {"workers_min": count, "workers_max": count} | values
        known = [field_.name for field_ in dataclasses.fields(self)]
        for name in values:
            if name not in known:
                raise MisuseError(
                    f"a pool has no setting {name!r}", hint=_hint(name, [*known, "workers"])
                )
        return dataclasses.replace(self, **values)

    def _check_parts(self) -> None:
        for name in ("rate", "key_rate", "worker_rate"):
            _check_rate(name, getattr(self, name))
        for name, kind in _KINDS.items():
            _check_kind(name, getattr(self, name), kind)
        if not are_errors(self.breaker_ignores):
            raise MisuseError(
                f"breaker_ignores is {self.breaker_ignores!r}",
                hint="give a tuple of classes of exceptions",
            )

    def scaling(self) -> ScalingSettings:
        return ScalingSettings(
            workers_min=self.workers_min,
            workers_max=self.workers_max,
            up_at=self.scale_up_at,
            up_wait_s=seconds(self.scale_up_wait, "scale_up_wait"),
            down_at=self.scale_down_at,
            idle_s=seconds(self.idle_timeout, "idle_timeout"),
            up_cool_down_s=seconds(self.scale_up_cool_down, "scale_up_cool_down"),
            down_cool_down_s=seconds(self.scale_down_cool_down, "scale_down_cool_down"),
        )


_COUNTS = ("workers_min", "workers_max", "queue_size", "scale_up_at", "scale_down_at")
_DURATIONS = (
    "ageing",
    "cancel_grace",
    "idle_timeout",
    "scale_down_cool_down",
    "scale_up_cool_down",
    "scale_up_wait",
)


# What a field has to be an instance of, or `None` where that is its default.
_KINDS: dict[str, type] = {
    "fair_keys": bool,
    "job": JobOptions,
    "pace": PaceSettings,
    "breaker": BreakerSettings,
    "key_breaker": BreakerSettings,
    "retry_budget": RetryBudget,
    "metrics": bool,
    "memory": MemorySettings,
    "health": HealthSettings,
}
_NEVER_NONE = ("fair_keys", "health", "job", "metrics")


def _check_kind(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind) and (value is not None or name in _NEVER_NONE):
        or_none = "" if name in _NEVER_NONE else " or None"
        raise MisuseError(f"{name} is {value!r}", hint=f"give a {kind.__name__}{or_none}")


def _check_rate(name: str, value: object) -> None:
    if isinstance(value, RateLimit | Rate) or value is None:
        return
    if isinstance(value, Allowance) and name == "rate":
        return
    if not isinstance(value, str):
        raise MisuseError(f"{name} is {value!r}", hint='give a text such as "10/s, 500/min"')
    try:
        RateLimit.parse(value)
    except MisuseError as error:
        raise MisuseError(f"{name} is {value!r}: {error.problem}", hint=error.hint) from None


def _hint(name: str, known: list[str]) -> str:
    if name in {field_.name for field_ in dataclasses.fields(JobOptions)}:
        return f"it is an option of jobs: Pool(job=JobOptions({name}=...)) or pool.options(...)"
    return near(name, known)


def _overflow_hint(value: object) -> str:
    meant = difflib.get_close_matches(str(value).lower(), list(Overflow), 1)
    suggestion = f'did you mean "{meant[0]}"? ' if meant else ""
    return f"{suggestion}give one of: {', '.join(Overflow)}"


def near(name: str, known: list[str]) -> str:
    """What to do about a name that is not known."""
    matches = difflib.get_close_matches(name, known, 1)
    return f"did you mean {matches[0]}?" if matches else f"there are: {', '.join(known)}"
