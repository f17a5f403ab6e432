"""Hears of new jobs, on a connection of its own, for as long as somebody waits for them."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from random import Random

import psycopg

from mailrace.clock import Clock
from mailrace.errors import MailraceError
from mailrace.pool.retry import Backoff
from mailrace.queue.queuerules import ALL_QUEUES
from mailrace.queue.stores.postgres.database import Database, connect
from mailrace.queue.stores.postgres.plans import Connection

CHANNEL = "mailrace"
PAUSE_S = 0.005
"""Whoever waits is woken at most once in this time."""
PROBE_EVERY_S = 15.0
PROBE_PATIENCE_S = 5.0
_PROBE = "\tprobe "
_BACKOFF = Backoff(attempts=2**31, first_s=0.5, cap_s=30.0, jitter="equal")


class Listener:
    """Wakes those who wait, when the server tells or somebody in this process does.

    It sends itself a notification over the other connections every 15 seconds: behind a pooler
    `LISTEN` may be accepted and nothing ever arrive.

    Args:
        dsn: Where to listen; `None`: nowhere.
        probes: By which way probes are sent: the one that news of jobs take.
        rng: Keeps processes apart that come back to a server.
    """

    def __init__(self, dsn: str | None, probes: Database, clock: Clock, rng: Random) -> None:
        self._dsn = dsn
        self._probes = probes
        self._clock = clock
        self._rng = rng
        self._waiting: list[tuple[frozenset[str], asyncio.Event]] = []
        self._task: asyncio.Task[None] | None = None
        self._answered = asyncio.Event()
        self.listening = False

    async def wakeups(self, queues: Sequence[str]) -> AsyncIterator[None]:
        """Yields when jobs may have come into the queues."""
        woken = asyncio.Event()
        entry = (frozenset(queues), woken)
        self._waiting.append(entry)
        if self._dsn is not None and self._task is None:
            self._task = asyncio.create_task(self._run(self._dsn), name="mailrace-listen")
        try:
            while True:
                await woken.wait()
                woken.clear()
                yield
                await self._clock.sleep_s(PAUSE_S)
        finally:
            self._waiting.remove(entry)

    def wake(self, queues: Iterable[str]) -> None:
        """Wakes those who wait for any of the queues."""
        came = set(queues)
        for wanted, woken in self._waiting:
            if ALL_QUEUES in wanted or not came.isdisjoint(wanted):
                woken.set()

    async def close(self) -> None:
        """Stops listening. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.listening = False

    async def _run(self, dsn: str) -> None:
        failures = 0
        while True:
            failures += 1
            with suppress(psycopg.Error, MailraceError, OSError, TimeoutError):
                connection = await connect(dsn)
                try:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    failures = 0
                    # What came while nobody listened.
                    self.wake(queue for wanted, _ in self._waiting for queue in wanted)
                    await self._listen(connection)
                finally:
                    self.listening = False
                    await connection.close()
            delay_s = _BACKOFF.delay_s(max(1, failures), self._rng.random())
            await asyncio.sleep(delay_s or 0.0)

    async def _listen(self, connection: Connection) -> None:
        probe = asyncio.create_task(self._probe(connection.pgconn.backend_pid))
        try:
            async for notify in connection.notifies():
                if notify.payload.startswith(_PROBE):
                    self._answered.set()
                else:
                    self.wake((notify.payload,))
        finally:
            probe.cancel()
            await asyncio.gather(probe, return_exceptions=True)

    async def _probe(self, number: int) -> None:
        while True:
            self._answered.clear()
            try:
                async with asyncio.timeout(PROBE_PATIENCE_S):
                    await self._probes.run("notify", queues=[f"{_PROBE}{number}"])
                    await self._answered.wait()
            except (MailraceError, TimeoutError):
                self.listening = False
            else:
                self.listening = True
            await asyncio.sleep(PROBE_EVERY_S)
