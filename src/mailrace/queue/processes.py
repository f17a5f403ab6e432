"""Processes that work on a store, as everybody sees them."""

from enum import StrEnum

import msgspec


class ProcessState(StrEnum):
    """What a process is doing."""

    STARTING = "starting"
    WORKING = "working"
    PAUSED = "paused"
    DRAINING = "draining"


class NewProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A process that begins to work.

    Attributes:
        journal: The name of its journal in the folder of its node.
        node: Names that folder: whoever has the same can read the journal.
        host: The machine's name, for people.
        pid: Its number there.
        version: Of Mailrace.
        supervisor: The name of the supervisor that started it; empty for none.
        concurrency: Jobs in hand at the same time, at most.
    """

    journal: str
    node: str = ""
    host: str = ""
    pid: int = 0
    version: str = ""
    supervisor: str = ""
    queues: tuple[str, ...] = ()
    concurrency: int = 0


class Vitals(msgspec.Struct, frozen=True, kw_only=True):
    """What a process tells of itself with each heartbeat.

    Attributes:
        in_hand: Attempts under way.
        held: Claimed jobs that are not begun.
        completed: Attempts that ended well since it started; `failed`: that did not.
        stale_s: The age of the oldest last useful turn among its loops.
        trouble: What is in the way, if anything.
        breakers_open: The breakers that let nothing through.
        loops_s: By loop: how long ago its last useful turn ended.
    """

    state: ProcessState = ProcessState.WORKING
    in_hand: int = 0
    held: int = 0
    completed: int = 0
    failed: int = 0
    stale_s: float = 0.0
    trouble: str = ""
    breakers_open: tuple[str, ...] = ()
    loops_s: dict[str, float] = msgspec.field(default_factory=dict)


class ProcessRow(msgspec.Struct, frozen=True, kw_only=True):
    """A process that may hold leases.

    Attributes:
        id: Never used before by any process.
        journal: The name of its journal.
        expires_ms: When its leases end unless it renews them, Unix milliseconds.
        expired: They have ended, by the store's clock.
        outlived: The store itself was started after the last heartbeat: what it was told last may
            be lost.
        started_ms: Since when it works, Unix milliseconds.
        heartbeat_ms: When it was last heard of.
    """

    id: int
    journal: str
    expires_ms: int
    expired: bool = False
    outlived: bool = False
    node: str = ""
    host: str = ""
    pid: int = 0
    version: str = ""
    supervisor: str = ""
    queues: tuple[str, ...] = ()
    concurrency: int = 0
    started_ms: int = 0
    heartbeat_ms: int = 0
    vitals: Vitals = Vitals()
