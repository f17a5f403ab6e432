"""What the workers of a process are doing and have done."""

from dataclasses import dataclass, field

from mailrace.errors import MailraceError
from mailrace.queue.attempts import Result
from mailrace.queue.jobs import ClaimedJob, Finished
from mailrace.queue.states import JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempted:
    """An attempt that ended, for whoever follows a run."""

    job: ClaimedJob
    result: Result
    record: Finished
    worker: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Troubled:
    """A worker could not reach the far side, or was refused by it; its job went back."""

    error: MailraceError
    worker: int


@dataclass(slots=True)
class Tally:
    """What the workers are doing and have done, in plain numbers.

    Attributes:
        in_hand: Attempts under way.
        paused: Workers that wait before they try to reach the far side again.
        trouble: What is in the way now, if anything.
        troubles: How often in a row the far side could not be reached.
        rejected: The trouble is such that only a person can mend it.
        ended: Attempts that ended, by the state they led to.
    """

    in_hand: int = 0
    paused: int = 0
    trouble: MailraceError | None = None
    troubles: int = 0
    rejected: bool = False
    ended: dict[JobState, int] = field(default_factory=lambda: dict.fromkeys(JobState, 0))
