"""How often a process tells that it lives: between what bounds, and unless it is said otherwise."""

from math import inf
from typing import Final

from mailrace.errors import MisuseError

LEASE_MIN_S: Final = 1.0
HEARTBEAT_MIN_S: Final = 0.1
HEARTBEAT_MAX_S: Final = 10.0
"""Others call a process late of which they have not heard for twelve seconds."""
HEARTBEAT_S: Final = 5.0
"""The default, where the lease is long enough for it."""
_PER_LEASE: Final = 5


def heartbeat_of(lease_s: float, heartbeat_s: float | None = None) -> float:
    """How often a lease is renewed.

    Args:
        lease_s: How long it holds.
        heartbeat_s: What it is set to; `None`: five times in the length of the lease, and at least
            every five seconds.
    """
    if heartbeat_s is not None:
        return heartbeat_s
    return min(HEARTBEAT_S, lease_s / _PER_LEASE)


def check_lease(lease_s: float, heartbeat_s: float | None) -> None:
    """Refuses a lease that cannot be held: two renewals have to fit in, as one may fail.

    Args:
        lease_s: How long claims hold.
        heartbeat_s: How often they are renewed; `None` for the default.

    Raises:
        MisuseError: One of them cannot be.
    """
    if not LEASE_MIN_S <= lease_s < inf:
        raise MisuseError(f"lease_s is {lease_s:g}", hint="give seconds, one or more")
    if heartbeat_s is None:
        return
    if not HEARTBEAT_MIN_S <= heartbeat_s <= HEARTBEAT_MAX_S:
        raise MisuseError(
            f"heartbeat_s is {heartbeat_s:g}",
            hint=f"give {HEARTBEAT_MIN_S:g} to {HEARTBEAT_MAX_S:g} seconds",
        )
    if not heartbeat_s < lease_s / 2:
        raise MisuseError(
            f"heartbeat_s is {heartbeat_s:g} and lease_s {lease_s:g}",
            hint=f"give less than half of the lease, {lease_s / 2:g} seconds",
        )
