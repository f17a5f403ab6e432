"""Supervisors as everybody sees them: a note each, kept up to date while they live."""

import contextlib
from collections.abc import Mapping
from typing import Final

import msgspec

NOTES: Final = "supervisor/"
"""What the names of their notes begin with."""
GONE_MS: Final = 15_000
"""One whose heartbeat is older is gone."""


class SupervisorRow(msgspec.Struct, frozen=True, kw_only=True):
    """A supervisor, as its note tells.

    Attributes:
        host: The machine's name, for people.
        pid: Its number there.
        processes: Those that there are to be; `processes_min` and `processes_max` bound them.
        pids: Those that run.
        state: `working`, `restarting` its processes one after the other, or `draining`.
        started_ms: Since when it works, Unix milliseconds.
        heartbeat_ms: When it was last heard of.
    """

    name: str
    host: str = ""
    pid: int = 0
    version: str = ""
    queues: tuple[str, ...] = ()
    processes: int = 0
    processes_min: int = 0
    processes_max: int = 0
    pids: tuple[int, ...] = ()
    state: str = "working"
    started_ms: int = 0
    heartbeat_ms: int = 0

    def is_gone(self, now_ms: int) -> bool:
        """Whether it has not been heard of for too long; one that was stopped has no row."""
        return now_ms - self.heartbeat_ms > GONE_MS


def read_supervisors(notes: Mapping[str, bytes]) -> list[SupervisorRow]:
    """The supervisors that notes tell of, by name; what is no such note tells of none."""
    rows = []
    for _, value in sorted(notes.items()):
        with contextlib.suppress(msgspec.MsgspecError):
            rows.append(msgspec.json.decode(value, type=SupervisorRow))
    return rows
