"""Plans that PostgreSQL keeps for what is asked all the time, where the connection is its own."""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import psycopg

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

# Those of every cycle of a worker: planning one may take longer than running it.
PREPARED = frozenset(
    {
        "begin",
        "claim",
        "claim_gated",
        "copy_admit",
        "enqueue",
        "finish",
        "finish_completed",
        "notify",
        "queues_waiting",
        "survey",
    }
)
# Statements are prepared when that is asked for, not from the nth time on.
_ONLY_ASKED = 2**31 - 1
# A plan is good for tables of the size that it was made for, and these grow from nothing to
# gigabytes while somebody holds a transaction open (benchmarks/bench_queue_history.py).
FRESH_S = 1.0


class Plans:
    """Has the statements in `PREPARED` be planned once a second and not each time.

    Behind a pooler, where the next transaction may have another server's connection, nothing is
    prepared.

    Args:
        now_s: Tells the time, on a scale that never goes back.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._made_s: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()

    async def begin(self, connection: Connection) -> None:
        """Looks at a connection that was just made."""
        if await _is_direct(connection):
            connection.prepare_threshold = _ONLY_ASKED
            self._made_s[connection] = self._now_s()

    async def renew(self, connection: Connection) -> None:
        """Forgets plans that are no longer fresh."""
        made_s = self._made_s.get(connection)
        if made_s is not None and self._now_s() - made_s >= FRESH_S:
            await connection.execute("DISCARD PLANS")
            self._made_s[connection] = self._now_s()


async def _is_direct(connection: Connection) -> bool:
    """Whether no pooler stands in between: that would have given a process number of its own."""
    cursor = await connection.execute("SELECT pg_backend_pid()")
    return await cursor.fetchone() == (connection.info.backend_pid,)
