"""A worker pool: workers, a bounded queue and the policies around them, inside one process."""

from mailrace.pool.allowance import Allowance
from mailrace.pool.breaker import BreakerSettings
from mailrace.pool.breaker_states import BreakerStanding, BreakerState
from mailrace.pool.budget import RetryBudget
from mailrace.pool.closing import CloseReport, Unfinished
from mailrace.pool.dead import DeadLetter, DeadLetterGroup, DeadLetters
from mailrace.pool.errors import (
    JobCancelledError,
    JobDroppedError,
    JobError,
    JobExpiredError,
    JobTimeoutError,
    PoolClosedError,
    PoolFullError,
    WorkerDiedError,
)
from mailrace.pool.happenings import PluginFailed, Scaled, WorkerDied
from mailrace.pool.health import Health, HealthSettings, Levels, Status
from mailrace.pool.histogram import Summary
from mailrace.pool.job import Job, current_job
from mailrace.pool.ledger import Ledger
from mailrace.pool.limiter import Limiter, NoLimit, RateLimiter, SharedRateLimiter, Slots
from mailrace.pool.memory import MemorySettings
from mailrace.pool.numbers import Numbers, Times
from mailrace.pool.options import JobOptions, Kind
from mailrace.pool.outcome import Attempt, Outcome, Reason
from mailrace.pool.pace import PaceSettings
from mailrace.pool.plugins import Plugin
from mailrace.pool.pool import Pool
from mailrace.pool.rate import Rate, RateLimit, Schedule
from mailrace.pool.retry import Backoff, RetryLaterError, RetryPolicy, RetrySchedule
from mailrace.pool.settings import Overflow, PoolSettings
from mailrace.pool.states import JobState
from mailrace.pool.stream import OutcomeStream

__all__ = [
    "Allowance",
    "Attempt",
    "Backoff",
    "BreakerSettings",
    "BreakerStanding",
    "BreakerState",
    "CloseReport",
    "DeadLetter",
    "DeadLetterGroup",
    "DeadLetters",
    "Health",
    "HealthSettings",
    "Job",
    "JobCancelledError",
    "JobDroppedError",
    "JobError",
    "JobExpiredError",
    "JobOptions",
    "JobState",
    "JobTimeoutError",
    "Kind",
    "Ledger",
    "Levels",
    "Limiter",
    "MemorySettings",
    "NoLimit",
    "Numbers",
    "Outcome",
    "OutcomeStream",
    "Overflow",
    "PaceSettings",
    "Plugin",
    "PluginFailed",
    "Pool",
    "PoolClosedError",
    "PoolFullError",
    "PoolSettings",
    "Rate",
    "RateLimit",
    "RateLimiter",
    "Reason",
    "RetryBudget",
    "RetryLaterError",
    "RetryPolicy",
    "RetrySchedule",
    "Scaled",
    "Schedule",
    "SharedRateLimiter",
    "Slots",
    "Status",
    "Summary",
    "Times",
    "Unfinished",
    "WorkerDied",
    "WorkerDiedError",
    "current_job",
]
