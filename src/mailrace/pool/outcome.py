"""How attempts and jobs end, as values for whoever follows them."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from mailrace.pool.states import JobState


class Reason(StrEnum):
    """Why a job ended as it did, or why an attempt of it did."""

    RESULT = "result"
    """Its function returned."""
    ERROR = "error"
    """Its function raised, and there was no retry to be had."""
    PERMANENT = "permanent"
    """Its function raised what its retry policy calls permanent."""
    ATTEMPTS = "attempts"
    """Its function raised, and that was the last attempt of its retry policy."""
    BUDGET = "budget"
    """Its function raised, and the pool's retry budget was spent."""
    TIMEOUT = "timeout"
    """The attempt took too long."""
    DEADLINE = "deadline"
    """All attempts together took too long, or the next one would have."""
    EXPIRED = "expired"
    """It did not start in time."""
    REQUESTED = "requested"
    """Somebody cancelled it."""
    HANDLER = "handler"
    """Its function was cancelled by something of its own."""
    OVERFLOW = "overflow"
    """It made room for another one."""
    MEMORY = "memory"
    """Memory ran short."""
    CLOSED = "closed"
    """The pool closed first."""
    WORKER_DIED = "worker died"
    """Its worker or process ended under it."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that did not bring the result.

    Attributes:
        number: 1 for the first one.
        at_unix_s: When it ended.
        ran_s: What it took, in seconds.
        error_type: The class of what was raised.
        message: Its text.
    """

    number: int
    at_unix_s: float
    ran_s: float
    error_type: str
    message: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a job stands after an attempt, or ended.

    Attributes:
        job_id: The job's number within its pool.
        name: What the job is called.
        state: A final state; `retryable` in a stream that was asked for retries too.
        reason: Why.
        value: What the function returned.
        error: What it raised; what `await job` raises.
        attempts: How often it was begun.
        waited_s: Seconds from the submit to the start of the last attempt, or to the end.
        ran_s: Seconds that the last attempt took.
        worker: The number of the worker that had it last; `None` if none ever did.
    """

    job_id: int
    name: str
    state: JobState
    reason: Reason
    value: Any
    error: BaseException | None
    attempts: int
    waited_s: float
    ran_s: float
    worker: int | None
    key: Hashable
    metadata: Mapping[str, Any]

    @property
    def succeeded(self) -> bool:
        """Whether the function returned."""
        return self.state is JobState.COMPLETED
