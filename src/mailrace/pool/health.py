"""How a pool is doing: what is wrong, since when, and how bad, as a pure function of numbers."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Final

from mailrace.errors import MisuseError
from mailrace.pool.memory import Rung
from mailrace.pool.ranges import check_whole

NEVER: Final = float("inf")
"""As the worse of two levels: what never makes a pool unhealthy by itself."""


class Status(IntEnum):
    """How bad it is; the worst condition is the status of the whole."""

    HEALTHY = 0
    DEGRADED = 1
    """Jobs are done, if not as they should be: somebody should look."""
    UNHEALTHY = 2
    """Jobs are not done, or far too late: send no more here until it is mended."""


class Code(StrEnum):
    """What can be wrong."""

    QUEUE_FULL = "queue_full"  # submitters wait or are refused
    QUEUE_WAIT = "queue_wait"  # the oldest job waits for longer than it should
    OVERFLOW = "overflow"  # the overflow buffer is in use
    FAILURE_RATE = "failure_rate"  # too many of the last minute's attempts failed
    BREAKER_OPEN = "breaker_open"  # the far side is given a rest
    STUCK = "stuck"  # a job has been running for longer than it ever should
    ABANDONED = "abandoned"  # jobs that go on after they were told to end
    NO_WORKERS = "no_workers"  # jobs wait and nobody is there to do them
    WORKER_DIED = "worker_died"  # workers ended by themselves in the last minute
    MEMORY = "memory"  # memory runs out; sources are stopped or jobs refused
    LOOP_LAG = "loop_lag"  # the event loop comes late to everything
    TIMER_LATE = "timer_late"  # the pool's own timer is overdue: retries and limits stand still
    PAUSED = "paused"  # somebody has paused the pool
    SOURCES_STOPPED = "sources_stopped"  # nothing is pulled from sources
    CLOSED = "closed"  # the pool takes no more jobs: it closes, or has closed


_HINTS: Final = MappingProxyType(
    {
        Code.QUEUE_FULL: "submit less, add workers or allow a longer queue",
        Code.QUEUE_WAIT: "add workers, or raise the rate limit if that is what holds jobs back",
        Code.OVERFLOW: "submit less or add workers before the overflow is full too",
        Code.FAILURE_RATE: "look at the errors of the last failed jobs",
        Code.BREAKER_OPEN: "look at the far side; jobs go on by themselves when it recovers",
        Code.STUCK: "give the handler a time limit of its own, or cancel the job",
        Code.ABANDONED: "make the handler end when it is cancelled; restart to be rid of them",
        Code.NO_WORKERS: "look for why workers end, or scale up",
        Code.WORKER_DIED: "look at the errors logged by the workers that ended",
        Code.MEMORY: "lower the bounds of queue and workers, or give the process more memory",
        Code.LOOP_LAG: "move blocking work of handlers to threads",
        Code.TIMER_LATE: "restart the process and report what it logged",
        Code.PAUSED: "resume the pool",
        Code.SOURCES_STOPPED: "they resume by themselves when there is room, or start them",
        Code.CLOSED: "send jobs to another process or pool; this one is not opened again",
    }
)

# What does not mend while the process lives on, once it is bad enough to be unhealthy.
_MENDED_BY_RESTART: Final = frozenset({Code.ABANDONED, Code.LOOP_LAG, Code.TIMER_LATE})


@dataclass(frozen=True, slots=True)
class Levels:
    """From which value on something is degraded, and from which it is unhealthy.

    Attributes:
        degraded: Above 0.
        unhealthy: The same or more; `NEVER` for what is not that bad.
    """

    degraded: float
    unhealthy: float = NEVER

    def status(self, value: float) -> Status:
        if value >= self.unhealthy:
            return Status.UNHEALTHY
        return Status.DEGRADED if value >= self.degraded else Status.HEALTHY

    def limit(self, value: float) -> float:
        """The level that a value has reached."""
        return self.unhealthy if value >= self.unhealthy else self.degraded


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSettings:
    """From where on something is wrong.

    Attributes:
        queue_wait_s: Seconds for which the oldest job that may run has waited. A minute is
            noticed by who waits for a receipt; after ten, sign-in codes are of no use any more.
        failure_share: Share (0 to 1) of the attempts that failed in the last minute. A tenth is
            beyond what bad addresses explain; at half, the fault is here or on the far side.
        failure_count_min: So many attempts have to have ended in the last minute before their
            share means anything: among fewer than 20 two failures are a tenth.
        stuck_s: Seconds for which the longest job has been running. An SMTP dialogue may take
            minutes by its own time limits (RFC 5321, 4.5.3.2), hence ten.
        abandoned: Jobs that go on after their end. Each keeps a worker's place; a few are a fault
            of a handler, ten are a leak that only a restart mends.
        worker_deaths: Workers that died in the last minute. None should; five are a loop of
            dying and starting.
        loop_lag_s: Seconds by which the event loop comes late. A tenth delays every timer and
            answer; after two seconds other programs begin to give up.
        timer_late_s: Seconds by which the pool's own timer is overdue, beyond what the loop's
            lag explains. Unhealthy at once: nothing else would show that retries stand still.
    """

    queue_wait_s: Levels = field(default=Levels(60.0, 600.0))
    failure_share: Levels = field(default=Levels(0.1, 0.5))
    failure_count_min: int = 20
    stuck_s: Levels = field(default=Levels(600.0))
    abandoned: Levels = field(default=Levels(1, 10))
    worker_deaths: Levels = field(default=Levels(1, 5))
    loop_lag_s: Levels = field(default=Levels(0.1, 2.0))
    timer_late_s: Levels = field(default=Levels(5.0, 5.0))

    def __post_init__(self) -> None:
        check_whole("failure_count_min", self.failure_count_min, least=1)
        for setting in fields(self):
            if setting.name != "failure_count_min":
                _check_levels(setting.name, getattr(self, setting.name))
        if not self.failure_share.degraded <= 1:
            raise MisuseError(
                f"failure_share begins at {self.failure_share.degraded}",
                hint="give a share of at most 1",
            )


def _check_levels(name: str, levels: object) -> None:
    if not isinstance(levels, Levels):
        example = f"Levels({levels})" if _is_number(levels) else "Levels(degraded, unhealthy)"
        raise MisuseError(f"{name} is {levels!r}", hint=f"write {name}={example}")
    known = _is_number(levels.degraded) and _is_number(levels.unhealthy)
    if not (known and 0 < levels.degraded <= levels.unhealthy):
        raise MisuseError(
            f"{name} cannot be {levels.degraded!r} for degraded "
            f"and {levels.unhealthy!r} for unhealthy",
            hint="give a first number above 0 and a second that is not below it",
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """What a pool measures of itself. What it has no measure for stays at its default.

    Attributes:
        workers: All workers.
        queued: Jobs that wait for a worker.
        queue_max: How many may wait; 0 for no bound.
        overflowing: Jobs in the overflow buffer.
        oldest_wait_s: Seconds for which the oldest of the jobs that may run has waited.
        held_back: A rate limit or a breaker is what lets them wait.
        ended: Attempts that ended in the last minute.
        failed: Those of them that failed, without ones that were cancelled.
        longest_run_s: Seconds for which the longest job has been running.
        abandoned: Jobs that go on after they were told to end.
        worker_deaths: Workers that ended by themselves in the last minute.
        breakers_open: Circuit breakers that let nothing or only probes through.
        memory_rung: Where on the memory ladder the process stands.
        memory_used_bytes: What it uses.
        memory_limit_bytes: What it may use; 0 for no limit.
        loop_lag_s: Seconds by which the event loop came late when it was last measured.
        timer_late_s: Seconds by which the next due time of the pool's timer has passed.
        paused_s: Seconds since the pool was paused; `None` when it is not.
        sources_stopped: Sources that are stopped and not at their end.
        closed: It takes no more jobs, and never will.
        details: What is to be said about findings besides numbers, by code.
    """

    workers: int
    queued: int = 0
    queue_max: int = 0
    overflowing: int = 0
    oldest_wait_s: float = 0.0
    held_back: bool = False
    ended: int = 0
    failed: int = 0
    longest_run_s: float = 0.0
    abandoned: int = 0
    worker_deaths: int = 0
    breakers_open: int = 0
    memory_rung: Rung = Rung.NORMAL
    memory_used_bytes: int = 0
    memory_limit_bytes: int = 0
    loop_lag_s: float = 0.0
    timer_late_s: float = 0.0
    paused_s: float | None = None
    sources_stopped: int = 0
    closed: bool = False
    details: Mapping[Code, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong now.

    Attributes:
        code: What.
        status: How bad.
        value: What was measured: seconds, bytes, a share or a number, by the code.
        limit: What it should have stayed below, in the same unit.
        hint: What to do about it.
        detail: Which jobs or breakers it is about, such as "job 17 (fetch) on worker 3, for
            612 s"; the first of them if there are many, and empty for most codes.
    """

    code: Code
    status: Status
    value: float
    limit: float
    hint: str
    detail: str = ""


def findings(vitals: Vitals, settings: HealthSettings) -> tuple[Finding, ...]:
    """Says what is wrong, in the order of `Code`.

    | code | value | degraded | unhealthy |
    |---|---|---|---|
    | queue_full | jobs | at its bound | never: who submits is meant to wait |
    | queue_wait | seconds | `queue_wait_s` | `queue_wait_s`, unless jobs are held back |
    | overflow | jobs | 1 | never |
    | failure_rate | share | `failure_share` | `failure_share` |
    | breaker_open | breakers | 1 | never: it does what it is for |
    | stuck | seconds | `stuck_s` | `stuck_s`, by default never |
    | abandoned | jobs | `abandoned` | `abandoned` |
    | no_workers | workers | - | none while jobs wait |
    | worker_died | workers | `worker_deaths` | `worker_deaths` |
    | memory | bytes | sources stopped | jobs refused or shed |
    | loop_lag | seconds | `loop_lag_s` | `loop_lag_s` |
    | timer_late | seconds | `timer_late_s` | `timer_late_s`, by default the same |
    | paused | seconds | always | never: somebody wanted it |
    | sources_stopped | sources | 1 | never |
    | closed | 1 | - | always: it takes no more jobs |
    """
    details = vitals.details
    return tuple(
        replace(found, detail=details[found.code]) if found.code in details else found
        for found in _findings(vitals, settings)
    )


def _findings(vitals: Vitals, settings: HealthSettings) -> Iterator[Finding]:
    one = Levels(1)
    if vitals.queue_max:
        yield from _over(Code.QUEUE_FULL, vitals.queued, Levels(vitals.queue_max))
    # While the pool is paused, waiting is what was asked for; a long wait for a rate limit needs a
    # look, but the pool does what it can.
    if vitals.paused_s is None:
        wait = settings.queue_wait_s
        wait = Levels(wait.degraded) if vitals.held_back else wait
        yield from _over(Code.QUEUE_WAIT, vitals.oldest_wait_s, wait)
    yield from _over(Code.OVERFLOW, vitals.overflowing, one)
    if vitals.ended >= settings.failure_count_min:
        share = vitals.failed / vitals.ended
        yield from _over(Code.FAILURE_RATE, share, settings.failure_share)
    yield from _over(Code.BREAKER_OPEN, vitals.breakers_open, one)
    yield from _over(Code.STUCK, vitals.longest_run_s, settings.stuck_s)
    yield from _over(Code.ABANDONED, vitals.abandoned, settings.abandoned)
    if vitals.queued and not vitals.workers:
        yield _finding(Code.NO_WORKERS, Status.UNHEALTHY, 0, 1)
    yield from _over(Code.WORKER_DIED, vitals.worker_deaths, settings.worker_deaths)
    if vitals.memory_rung > Rung.NORMAL:
        refuses = vitals.memory_rung >= Rung.REFUSE
        status = Status.UNHEALTHY if refuses else Status.DEGRADED
        yield _finding(Code.MEMORY, status, vitals.memory_used_bytes, vitals.memory_limit_bytes)
    yield from _over(Code.LOOP_LAG, vitals.loop_lag_s, settings.loop_lag_s)
    yield from _over(Code.TIMER_LATE, vitals.timer_late_s, settings.timer_late_s)
    if vitals.paused_s is not None:
        yield _finding(Code.PAUSED, Status.DEGRADED, vitals.paused_s, 0)
    yield from _over(Code.SOURCES_STOPPED, vitals.sources_stopped, one)
    if vitals.closed:
        yield _finding(Code.CLOSED, Status.UNHEALTHY, 1, 1)


def _over(code: Code, value: float, levels: Levels) -> Iterator[Finding]:
    status = levels.status(value)
    if status is not Status.HEALTHY:
        yield _finding(code, status, value, levels.limit(value))


def _finding(code: Code, status: Status, value: float, limit: float) -> Finding:
    return Finding(code=code, status=status, value=value, limit=limit, hint=_HINTS[code])


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason(Finding):
    """A finding, and for how long it has been one.

    Attributes:
        since_unix_s: When it was first found, Unix seconds; to be shown.
        lasts_s: Seconds since then by the monotonic clock, right whatever the wall clock did.
    """

    since_unix_s: float
    lasts_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How a pool is doing.

    Attributes:
        status: That of the worst reason; healthy without any.
        reasons: The worst first, and of equally bad ones the oldest.
    """

    status: Status = Status.HEALTHY
    reasons: tuple[Reason, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether more work should be sent here: the answer to a readiness probe."""
        return self.status < Status.UNHEALTHY

    @property
    def live(self) -> bool:
        """Whether the process should go on: false for what only a restart mends.

        The answer to a liveness probe. That the far side fails or memory is short is no reason
        to restart: it would lose what waits in memory and change nothing.
        """
        return not any(
            reason.status is Status.UNHEALTHY and reason.code in _MENDED_BY_RESTART
            for reason in self.reasons
        )


class HealthBook:
    """Remembers since when something has been wrong.

    What is not found any more is forgotten: it has healed, and begins anew when it comes back.
    """

    __slots__ = ("_since",)

    def __init__(self) -> None:
        self._since: dict[Code, tuple[float, float]] = {}

    def update(self, found: Iterable[Finding], now_s: float, unix_s: float) -> Health:
        """Takes what is wrong now and says how the pool is doing.

        Args:
            found: All of it; of several with one code the worst counts.
            now_s: Monotonic seconds.
            unix_s: The same moment in Unix seconds.
        """
        worst: dict[Code, Finding] = {}
        for finding in found:
            known = worst.get(finding.code)
            if known is None or finding.status > known.status:
                worst[finding.code] = finding
        self._since = {code: self._since.get(code, (now_s, unix_s)) for code in worst}
        reasons = [self._reason(finding, now_s) for finding in worst.values()]
        reasons.sort(key=lambda reason: (-reason.status, -reason.lasts_s))
        return Health(
            status=reasons[0].status if reasons else Status.HEALTHY, reasons=tuple(reasons)
        )

    def _reason(self, finding: Finding, now_s: float) -> Reason:
        since_s, since_unix_s = self._since[finding.code]
        return Reason(
            code=finding.code,
            status=finding.status,
            value=finding.value,
            limit=finding.limit,
            hint=finding.hint,
            detail=finding.detail,
            since_unix_s=since_unix_s,
            lasts_s=now_s - since_s,
        )
