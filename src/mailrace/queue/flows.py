"""Flows: the streams of waiting jobs that a worker chooses from, as values."""

import msgspec


class Flow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Waiting jobs of one queue, tenant and priority, and how long the first has waited.

    Attributes:
        waited_ms: Since the first one was due; below zero: it is due in so long.
    """

    queue: str
    tenant: str
    priority: int
    waited_ms: int


class Want(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """So many jobs at most of one flow."""

    queue: str
    tenant: str
    priority: int
    jobs: int
