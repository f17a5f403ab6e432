"""Limits over the whole cluster, for those who wait for them."""

from functools import partial
from typing import Final

from mailrace.clock import Clock
from mailrace.pool import SharedRateLimiter
from mailrace.queue.limits import LimitRow
from mailrace.queue.store import Rules

# Short enough that what a killed process had taken is hardly missed.
SLICE_S: Final = 0.1


def shared_limiter(
    store: Rules, name: str, default: LimitRow | None, clock: Clock
) -> SharedRateLimiter:
    """Waits for the limit of that name in the store, made from the default if there is none."""
    keeper = partial(store.take_slots, name, default, span_s=SLICE_S)
    return SharedRateLimiter(clock, keeper)
