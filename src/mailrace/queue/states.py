"""The states of a job and the steps between them: the only place that knows which are legal."""

from enum import StrEnum
from typing import Final

from mailrace.errors import ConflictError


class JobState(StrEnum):
    """Where a job stands. The stores write these very words."""

    SCHEDULED = "scheduled"
    AVAILABLE = "available"
    RUNNING = "running"
    RETRYABLE = "retryable"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    UNCERTAIN = "uncertain"


class Step(StrEnum):
    """What can happen to a job."""

    CLAIM = "claim"
    RELEASE = "release"
    COMPLETE = "complete"
    RETRY = "retry"
    SNOOZE = "snooze"
    FAIL = "fail"
    LOSE = "lose"
    DIE = "die"
    CANCEL = "cancel"
    EXPIRE = "expire"
    RESCHEDULE = "reschedule"
    REVIVE = "revive"


WAITING: Final = (JobState.SCHEDULED, JobState.AVAILABLE, JobState.RETRYABLE)
"""States from which a worker may take a job once its time has come."""

FINAL: Final = frozenset(
    {
        JobState.COMPLETED,
        JobState.FAILED,
        JobState.CANCELLED,
        JobState.EXPIRED,
        JobState.UNCERTAIN,
    }
)
"""States in which a job stays unless a person decides otherwise."""

REVIVABLE: Final = (
    JobState.FAILED,
    JobState.CANCELLED,
    JobState.EXPIRED,
    JobState.UNCERTAIN,
)

STEPS: Final[dict[tuple[JobState, Step], JobState]] = {
    # A worker takes the job under a new lease. There is no step in between when its time comes:
    # a scheduled job or a retry is claimed as it is, so that waiting costs no write.
    **{(state, Step.CLAIM): JobState.RUNNING for state in WAITING},
    # It was claimed and not started: handed back, no attempt counted.
    (JobState.RUNNING, Step.RELEASE): JobState.AVAILABLE,
    (JobState.RUNNING, Step.COMPLETE): JobState.COMPLETED,
    # It failed for a while and waits for its next attempt.
    (JobState.RUNNING, Step.RETRY): JobState.RETRYABLE,
    # Its handler wants it later, and did not fail: no attempt counted.
    (JobState.RUNNING, Step.SNOOZE): JobState.SCHEDULED,
    (JobState.RUNNING, Step.FAIL): JobState.FAILED,
    # It was started, and nobody can know how that ended.
    (JobState.RUNNING, Step.LOSE): JobState.UNCERTAIN,
    # Its process died with it, and it may be run again: the death is counted, not the attempt.
    (JobState.RUNNING, Step.DIE): JobState.AVAILABLE,
    **{(state, Step.CANCEL): JobState.CANCELLED for state in (*WAITING, JobState.RUNNING)},
    **{(state, Step.EXPIRE): JobState.EXPIRED for state in (*WAITING, JobState.RUNNING)},
    # A person chooses another time.
    **{(state, Step.RESCHEDULE): JobState.SCHEDULED for state in WAITING},
    # A person asks for a job to be done again, its attempts begun anew.
    **{(state, Step.REVIVE): JobState.AVAILABLE for state in REVIVABLE},
}


def after(state: JobState, step: Step) -> JobState:
    """The state that `step` leads to from `state`.

    Raises:
        ConflictError: There is no such step.
    """
    try:
        return STEPS[state, step]
    except KeyError:
        raise ConflictError(f"a job that is {state} cannot {step}") from None


def diagram() -> str:
    """The table as a Mermaid state diagram, as `docs/architecture.md` shows it."""
    lines = [f"    {state} --> {to}: {step}" for (state, step), to in STEPS.items()]
    ends = [f"    {state} --> [*]" for state in JobState if state in FINAL]
    starts = [f"    [*] --> {state}: enqueue" for state in (JobState.AVAILABLE, JobState.SCHEDULED)]
    return "\n".join(["stateDiagram-v2", *starts, *lines, *ends])
