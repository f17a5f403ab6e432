"""Wake-ups by Redis: published after jobs came in, and heard by whoever waits for some."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from random import Random
from typing import Final

import msgspec

from mailrace.clock import Clock
from mailrace.errors import UnavailableError
from mailrace.pool.retry import Backoff
from mailrace.queue.queuerules import ALL_QUEUES
from mailrace.queue.stores.redis_cache.server import FAULTS, Client, Server

PAUSE_S: Final = 0.01
"""A wake-up is published, and whoever waits is woken, at most once in this time."""
_PROBE_EVERY_S: Final = 15.0
_PROBE_PATIENCE_S: Final = 5.0
_BACKOFF: Final = Backoff(attempts=2**31, first_s=0.5, cap_s=10.0, jitter="equal")
_QUEUES: Final = msgspec.json.Decoder(list[str])


class News:
    """One channel of one server.

    What cannot be told or heard is forgotten: there are the store's own wake-ups beside these, and
    whoever waits for jobs asks at intervals all the same.
    """

    def __init__(self, server: Server, channel: str, clock: Clock, rng: Random) -> None:
        self._server = server
        self._channel = channel
        self._clock = clock
        self._rng = rng
        self._waiting: list[tuple[frozenset[str], asyncio.Event]] = []
        self._untold: set[str] = set()
        self._telling: asyncio.Task[None] | None = None
        self._hearing: asyncio.Task[None] | None = None
        self._failures = 0
        self.listening = False

    def tell(self, queues: Iterable[str]) -> None:
        """Has the queues be told of, now or at the end of the pause; keeps nobody waiting."""
        self._untold.update(queues)
        if self._untold and (self._telling is None or self._telling.done()):
            self._telling = asyncio.create_task(self._tell(), name="mailrace-redis-tell")

    @contextmanager
    def heard_by(self, queues: Sequence[str], woken: asyncio.Event) -> Iterator[None]:
        """Sets an event whenever jobs may have come into the queues; `*` means all."""
        entry = (frozenset(queues), woken)
        self._waiting.append(entry)
        if self._hearing is None:
            self._hearing = asyncio.create_task(self._hear(), name="mailrace-redis-hear")
        try:
            yield
        finally:
            self._waiting.remove(entry)

    async def close(self) -> None:
        """Waits for what is on its way, and hears nothing more. Idempotent."""
        if self._telling is not None:
            await asyncio.gather(self._telling, return_exceptions=True)
        if self._hearing is not None:
            self._hearing.cancel()
            await asyncio.gather(self._hearing, return_exceptions=True)

    async def _tell(self) -> None:
        while self._untold:
            queues = msgspec.json.encode(sorted(self._untold))
            self._untold.clear()
            try:
                await self._server.ask(partial(self._publish, queues))
            except UnavailableError:
                self._untold.clear()
                return
            await self._clock.sleep_s(PAUSE_S)

    async def _publish(self, queues: bytes, client: Client) -> None:
        await client.publish(self._channel, queues)

    async def _hear(self) -> None:
        while True:
            self._failures += 1
            # Tried again; `listening` tells meanwhile.
            with suppress(*FAULTS):
                async with self._server.client.pubsub() as channel:
                    async with asyncio.timeout(_PROBE_PATIENCE_S):
                        await channel.subscribe(self._channel)
                    await self._listen(channel)
            self.listening = False
            # Jittered: processes come back to a server one by one.
            await self._clock.sleep_s(_BACKOFF.delay_s(self._failures, self._rng.random()) or 0.0)

    async def _listen(self, channel: Client) -> None:
        while True:
            message = await channel.get_message(timeout=_PROBE_EVERY_S)
            if message is None:
                await channel.ping()
                message = await channel.get_message(timeout=_PROBE_PATIENCE_S)
            if message is None:
                raise TimeoutError("nothing is heard of Redis")
            self.listening, self._failures = True, 0
            if message["type"] == "message":
                self._wake(message["data"])
            elif message["type"] == "subscribe":
                self._wake(b"")  # for what came while nobody listened

    def _wake(self, told: bytes) -> None:
        try:
            came = _QUEUES.decode(told)
        except msgspec.DecodeError:
            came = None  # whatever it was, looking does no harm
        for wanted, woken in self._waiting:
            if came is None or ALL_QUEUES in wanted or not wanted.isdisjoint(came):
                woken.set()
