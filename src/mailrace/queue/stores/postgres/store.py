"""The store on PostgreSQL: its parts joined to one."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from random import Random
from typing import Self

from mailrace.clock import Clock, SystemClock
from mailrace.queue.stores.postgres.claims import Claims
from mailrace.queue.stores.postgres.database import Database
from mailrace.queue.stores.postgres.desk import Desk
from mailrace.queue.stores.postgres.dsn import address
from mailrace.queue.stores.postgres.figures import Figures
from mailrace.queue.stores.postgres.fleet import Fleet
from mailrace.queue.stores.postgres.heartbeat import Heartbeats
from mailrace.queue.stores.postgres.intake import Intake
from mailrace.queue.stores.postgres.migrate import prepare
from mailrace.queue.stores.postgres.rules import Rules
from mailrace.queue.stores.postgres.upkeep import Upkeep
from mailrace.queue.stores.postgres.wakeups import Listener

_WORK = 2
_DESK = 1
# To listen, and for the heartbeat, which is a thread's.
_OTHERS = 2


class PostgresStore(Intake, Claims, Heartbeats, Desk, Rules, Fleet, Figures, Upkeep):
    """Durable jobs in a PostgreSQL database, for any number of processes on any machines.

    Args:
        dsn: As `dsn.address` takes it.
        clock: Whose time is stored; without one the server's clock rules.
        rng: Keeps processes apart that come back to a server.
    """

    def __init__(self, dsn: str, clock: Clock | None = None, rng: Random | None = None) -> None:
        found = address(dsn)
        work = Database(found.dsn, clock, connections=_WORK)
        desk = Database(found.dsn, clock, connections=_DESK)
        super().__init__(work, desk, clock or SystemClock())
        self.place = found.place
        rng = rng or Random()  # noqa: S311 - no secret
        self._listener = Listener(found.listen, work, self.clock, rng)
        self.connections = _WORK + _DESK + _OTHERS - (found.listen is None)
        """How many connections to the server a working process has, at most."""

    @classmethod
    async def open(cls, dsn: str, clock: Clock | None = None) -> Self:
        """Checks the tables, and makes them where the database has no schema `mailrace` yet.

        Raises:
            MisuseError: The address, the user or the tables are not right.
            UnavailableError: The server cannot be reached.
        """
        await asyncio.to_thread(prepare, dsn)
        return cls(dsn, clock)

    def wake_nearby(self, queues: set[str]) -> None:
        self._listener.wake(queues)

    def wakeups(self, queues: Sequence[str]) -> AsyncIterator[None]:
        return self._listener.wakeups(queues)

    @property
    def listening(self) -> bool:
        return self._listener.listening

    async def close(self) -> None:
        await self._notifier.close()
        await self._listener.close()
        for closer in self._closers:
            await asyncio.to_thread(closer)
        self._closers.clear()
        await self.work.close()
        await self.desk.close()
