"""How many jobs of a queue, or with one key, may run at a time over all processes."""

import sqlite3
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from mailrace.queue.flows import Want
from mailrace.queue.stores.sqlite.database import one, run, statement

# How many jobs of full keys one claim sets aside for each flow, at most: it then looks again at
# its next turn.
_ASIDE_MAX = 5_000
_LOOK_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Gate:
    """The rules of a queue as a claim needs them."""

    queue: str
    paused: bool
    concurrency: int | None
    concurrency_per_key: int | None


class _Candidate(NamedTuple):
    id: int
    key: str | None
    batch_id: int
    state: str


def gates_of(connection: sqlite3.Connection, queues: set[str]) -> dict[str, Gate]:
    """Those of the queues that are not simply open."""
    names = msgspec.json.encode(sorted(queues)).decode()
    rows = connection.execute(statement("rules_of"), {"queues": names}).fetchall()
    return {row[0]: Gate(row[0], bool(row[1]), row[2], row[3]) for row in rows}


class Entry:
    """Takes jobs of one gated queue in one claim: what is running is counted once.

    It is counted and not kept: the index has no more than what may run, and no count of ours can
    drift from the truth.
    """

    def __init__(self, connection: sqlite3.Connection, gate: Gate) -> None:
        self._connection = connection
        self._gate = gate
        self._free_by_key: dict[str, int] = {}
        self._free: int | None = None
        if gate.concurrency is not None:
            running: int = one(connection, "running_in_queue", queue=gate.queue)
            self._free = max(0, gate.concurrency - running)

    def take(self, want: Want, now_ms: int) -> None:
        """Puts what may run of a flow into `claiming`; sets jobs of full keys aside."""
        left = want.jobs
        aside = 0
        while left > 0 and self._free != 0 and aside < _ASIDE_MAX:
            candidates = self._candidates(want, now_ms)
            full: list[int] = []
            for candidate in candidates:
                if left == 0 or self._free == 0:
                    break
                if self._enters(candidate.key):
                    left -= 1
                    self._add(candidate)
                else:
                    full.append(candidate.id)
            self._set_aside(full)
            aside += len(full)
            if len(candidates) < _LOOK_AT_ONCE:
                return

    def _candidates(self, want: Want, now_ms: int) -> list[_Candidate]:
        rows = self._connection.execute(
            statement("candidates"),
            {
                "queue": want.queue,
                "tenant": want.tenant,
                "priority": want.priority,
                "now_ms": now_ms,
                "jobs": _LOOK_AT_ONCE,
            },
        ).fetchall()
        return [_Candidate(*row) for row in rows]

    def _enters(self, key: str | None) -> bool:
        most = self._gate.concurrency_per_key
        if key is None or most is None:
            return True
        if key not in self._free_by_key:
            self._free_by_key[key] = most - running_by_key(self._connection, self._gate.queue, key)
        if self._free_by_key[key] <= 0:
            return False
        self._free_by_key[key] -= 1
        return True

    def _add(self, candidate: _Candidate) -> None:
        if self._free is not None:
            self._free -= 1
        run(
            self._connection, "claiming_add",
            id=candidate.id, queue=self._gate.queue, batch_id=candidate.batch_id,
            state=candidate.state,
        )  # fmt: skip

    def _set_aside(self, ids: list[int]) -> None:
        if ids:
            run(self._connection, "block", ids=msgspec.json.encode(ids).decode())


def running_by_key(connection: sqlite3.Connection, queue: str, key: str) -> int:
    running: int = one(connection, "running_by_key", queue=queue, key=key)
    return running


def let_in(connection: sqlite3.Connection, queue: str, key: str) -> int:
    """Brings back as many jobs of a key that were set aside as may run now; returns how many.

    One too many does no harm: whoever claims it next sets it aside again.
    """
    gate = gates_of(connection, {queue}).get(queue)
    most = gate.concurrency_per_key if gate else None
    free = -1 if most is None else max(0, most - running_by_key(connection, queue, key))
    back = run(connection, "unblock", queue=queue, key=key, jobs=free)
    if back:
        run(connection, "arrivals_add", queue=queue)
    return back
