"""How much work there is and was, as values."""

from typing import Final

import msgspec

from mailrace.queue.states import JobState

MINUTE_MS: Final = 60_000
"""A slice of `Throughput`."""


class QueueFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One queue.

    Attributes:
        counts: Jobs by state, every state; their sum is all that were ever accepted, less what
            retention has removed.
        due: Waiting jobs whose time has come: counted up to ten thousand, estimated beyond.
        oldest_due_ms: How long the first of them has waited.
    """

    queue: str
    counts: dict[JobState, int]
    due: int
    oldest_due_ms: int


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """What ended in one minute, in one queue.

    Attributes:
        start_ms: When the minute begins, Unix milliseconds.
        failed: Jobs that ended as failed or uncertain; `retried`: attempts that will be repeated.
    """

    queue: str
    start_ms: int
    completed: int
    failed: int
    retried: int
