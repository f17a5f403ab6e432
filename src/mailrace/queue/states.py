"""The states of a job and the steps between them: the only place that knows which are legal."""

from enum import StrEnum
from typing import Final

from mailrace.errors import ConflictError


class JobState(StrEnum):
    """Where a job stands. The stores write these very words."""

    AVAILABLE = "available"
    RUNNING = "running"
    RETRYABLE = "retryable"
    COMPLETED = "completed"
    FAILED = "failed"
    UNCERTAIN = "uncertain"


class Step(StrEnum):
    """What can happen to a job."""

    CLAIM = "claim"
    RELEASE = "release"
    COMPLETE = "complete"
    RETRY = "retry"
    FAIL = "fail"
    LOSE = "lose"
    STAGE = "stage"
    RESEND = "resend"


FINAL: Final = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.UNCERTAIN})
"""States in which a job stays unless a person decides otherwise."""

STEPS: Final[dict[tuple[JobState, Step], JobState]] = {
    # A worker takes the job under a new lease.
    (JobState.AVAILABLE, Step.CLAIM): JobState.RUNNING,
    # It was claimed and not started: handed back, no attempt counted.
    (JobState.RUNNING, Step.RELEASE): JobState.AVAILABLE,
    (JobState.RUNNING, Step.COMPLETE): JobState.COMPLETED,
    # It failed for a while and waits for its next attempt.
    (JobState.RUNNING, Step.RETRY): JobState.RETRYABLE,
    (JobState.RUNNING, Step.FAIL): JobState.FAILED,
    # It was started, and nobody can know how that ended.
    (JobState.RUNNING, Step.LOSE): JobState.UNCERTAIN,
    # Its time has come.
    (JobState.RETRYABLE, Step.STAGE): JobState.AVAILABLE,
    # A person asks for an uncertain job to be done again.
    (JobState.UNCERTAIN, Step.RESEND): JobState.AVAILABLE,
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
    return "\n".join(["stateDiagram-v2", "    [*] --> available: enqueue", *lines, *ends])
