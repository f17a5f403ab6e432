"""The states of a job in a pool and the steps between them, as a table."""

from enum import StrEnum
from typing import Final


class JobState(StrEnum):
    """Where a job of a pool stands."""

    AVAILABLE = "available"
    RUNNING = "running"
    RETRYABLE = "retryable"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    DROPPED = "dropped"
    HANDED_BACK = "handed back"


FINAL: Final = frozenset(
    {
        JobState.COMPLETED,
        JobState.FAILED,
        JobState.CANCELLED,
        JobState.EXPIRED,
        JobState.DROPPED,
        JobState.HANDED_BACK,
    }
)
"""States that a job does not leave: it has exactly one of them, once."""

STEPS: Final[dict[JobState, frozenset[JobState]]] = {
    # A worker takes it; or it never comes to that.
    JobState.AVAILABLE: frozenset(
        {
            JobState.RUNNING,
            JobState.CANCELLED,
            JobState.EXPIRED,
            JobState.DROPPED,
            JobState.HANDED_BACK,
        }
    ),
    # The attempt ended, was ended, or the pool closed over it.
    JobState.RUNNING: frozenset(
        {
            JobState.COMPLETED,
            JobState.RETRYABLE,
            JobState.FAILED,
            JobState.CANCELLED,
            JobState.HANDED_BACK,
        }
    ),
    # Its time for the next attempt came; or it never comes to that.
    JobState.RETRYABLE: frozenset(
        {
            JobState.AVAILABLE,
            JobState.CANCELLED,
            JobState.EXPIRED,
            JobState.DROPPED,
            JobState.HANDED_BACK,
        }
    ),
}


def diagram() -> str:
    """The table as a Mermaid state diagram, as `docs/pool.md` shows it."""
    steps = [
        f"    {_node(state)} --> {_node(to)}"
        for state, targets in STEPS.items()
        for to in JobState
        if to in targets
    ]
    ends = [f"    {_node(state)} --> [*]" for state in JobState if state in FINAL]
    return "\n".join(["stateDiagram-v2", "    [*] --> available", *steps, *ends])


def _node(state: JobState) -> str:
    return state.replace(" ", "_")
