"""The states of a breaker and the steps between them: the only place that knows which are legal."""

from collections.abc import Hashable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from mailrace.errors import ConflictError


class BreakerState(StrEnum):
    """What a breaker lets through: everything, nothing, or a few probes."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half open"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerStanding:
    """How one of a pool's breakers stands.

    Attributes:
        key: Whose jobs it lets through; `None` for the pool's own, which is for all of them, and
            for that of the jobs without a key.
        of_pool: It is the pool's own.
        state: What it lets through.
        retry_in_s: Seconds until it may let a job through; 0.0 for now.
    """

    key: Hashable
    of_pool: bool
    state: BreakerState
    retry_in_s: float


class BreakerStep(StrEnum):
    """What can happen to a breaker."""

    FAIL = "fail"
    WAIT_OUT = "wait out"
    FAIL_PROBE = "fail a probe"
    RECOVER = "recover"
    TRIP = "trip"
    RESET = "reset"


STEPS: Final[dict[tuple[BreakerState, BreakerStep], BreakerState]] = {
    # There were too many failures in the window.
    (BreakerState.CLOSED, BreakerStep.FAIL): BreakerState.OPEN,
    # The break is over, and somebody wants to go.
    (BreakerState.OPEN, BreakerStep.WAIT_OUT): BreakerState.HALF_OPEN,
    (BreakerState.HALF_OPEN, BreakerStep.FAIL_PROBE): BreakerState.OPEN,
    (BreakerState.HALF_OPEN, BreakerStep.RECOVER): BreakerState.CLOSED,
    # By hand.
    (BreakerState.CLOSED, BreakerStep.TRIP): BreakerState.OPEN,
    (BreakerState.OPEN, BreakerStep.TRIP): BreakerState.OPEN,
    (BreakerState.HALF_OPEN, BreakerStep.TRIP): BreakerState.OPEN,
    (BreakerState.CLOSED, BreakerStep.RESET): BreakerState.CLOSED,
    (BreakerState.OPEN, BreakerStep.RESET): BreakerState.CLOSED,
    (BreakerState.HALF_OPEN, BreakerStep.RESET): BreakerState.CLOSED,
}


def after(state: BreakerState, step: BreakerStep) -> BreakerState:
    """The state that `step` leads to from `state`.

    Raises:
        ConflictError: There is no such step.
    """
    try:
        return STEPS[state, step]
    except KeyError:
        raise ConflictError(f"a breaker that is {state} cannot {step}") from None
