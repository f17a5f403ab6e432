"""A store with a Redis beside it, which makes it quicker and never more than that."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Final, Self

import msgspec

from mailrace.clock import Clock
from mailrace.pool.limiter import Slots
from mailrace.queue.jobs import Enqueued, NewJob
from mailrace.queue.limits import LimitRow
from mailrace.queue.store import Store
from mailrace.queue.stores.redis_cache.news import PAUSE_S, News
from mailrace.queue.stores.redis_cache.server import Server
from mailrace.queue.stores.redis_cache.slices import Slices, Source
from mailrace.queue.stores.redis_cache.unchanged import Unchanged

# So much of a limit is lost with the cache, and so long an edit of it by somebody who has no cache
# is not seen; a longer one would spare the store little more.
_SLICE_S: Final = 1.0
_NOTE: Final = "redis-cache"


class CachedStore(Unchanged):
    """Takes slots by way of Redis and hears of jobs through it; all else is the store's own.

    The store is the only source of truth: without Redis everything goes on, only slower.

    Attributes:
        connections: How many connections the store has to its own server, at most.
    """

    def __init__(
        self,
        store: Store,
        server: Server,
        *,
        slices: Slices,
        news: News,
        clock: Clock,
        tokens: Callable[[], str],
    ) -> None:
        super().__init__(store)
        self._store = store
        self._server = server
        self._slices = slices
        self._news = news
        self._clock = clock
        self._tokens = tokens
        self.connections: int | None = getattr(store, "connections", None)

    @classmethod
    async def open(
        cls,
        store: Store,
        url: str,
        clock: Clock,
        tokens: Callable[[], str],
        rng: Random | None = None,
    ) -> Self:
        """Puts a Redis beside a store; one that is out of reach is waited for by nobody.

        Args:
            tokens: Names that nobody else has.
            rng: Keeps processes apart that come back to a server.

        Raises:
            MisuseError: The address is none, or the server refuses the password in it.
            UnavailableError: The store is out of reach.
        """
        server = Server(url, clock)
        try:
            await server.greet()
            prefix = f"mailrace:{await _name(store, tokens)}"
        except BaseException:
            await server.close()
            raise
        return cls(
            store,
            server,
            slices=Slices(server, prefix),
            news=News(server, f"{prefix}:jobs", clock, rng or Random()),  # noqa: S311 - no secret
            clock=clock,
            tokens=tokens,
        )

    @property
    def trouble(self) -> Exception | None:
        """Why Redis is not used at present; `None` where it is."""
        return self._server.trouble

    async def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        answers = await self._store.enqueue(jobs)
        self._news.tell(job.queue for job, answer in zip(jobs, answers, strict=True) if answer.new)
        return answers

    async def wakeups(self, queues: Sequence[str]) -> AsyncIterator[None]:
        woken = asyncio.Event()
        own = asyncio.create_task(_pass_on(self._store.wakeups(queues), woken))
        try:
            with self._news.heard_by(queues, woken):
                while True:
                    await woken.wait()
                    woken.clear()
                    if own.done():
                        return  # the store is closed
                    yield
                    await self._clock.sleep_s(PAUSE_S)
        finally:
            own.cancel()
            await asyncio.gather(own, return_exceptions=True)

    @property
    def listening(self) -> bool:
        return self._store.listening or self._news.listening

    async def set_limit(self, limit: LimitRow) -> None:
        await self._store.set_limit(limit)
        await self._slices.drop(limit.name)

    async def remove_limit(self, name: str) -> bool:
        removed = await self._store.remove_limit(name)
        await self._slices.drop(name)
        return removed

    async def slow_limit(
        self, name: str, *, factor: float, floor: float, cool_down_s: float
    ) -> float:
        pace = await self._store.slow_limit(
            name, factor=factor, floor=floor, cool_down_s=cool_down_s
        )
        await self._slices.slow(name, pace)
        return pace

    async def take_slots(self, name: str, default: LimitRow | None, *, span_s: float) -> Slots:
        token = self._tokens()
        match await self._slices.take(name, span_s, token):
            case Source.STORE:
                return await self._store.take_slots(name, default, span_s=span_s)
            case Source.FETCH:
                return await self._fetch(name, default, span_s, token)
            case found:
                return found

    async def _fetch(self, name: str, default: LimitRow | None, span_s: float, token: str) -> Slots:
        """Takes more than is needed and leaves the rest to others."""
        fetched = await self._store.take_slots(name, default, span_s=max(span_s, _SLICE_S))
        answered_s = self._clock.monotonic_s()
        mine, rest = _cut(fetched, span_s)
        if rest.slots:
            await self._slices.put(name, rest, token)
        late_s = self._clock.monotonic_s() - answered_s
        return replace(mine, first_in_s=mine.first_in_s - late_s)

    async def close(self) -> None:
        await self._news.close()
        await self._store.close()
        await self._server.close()


async def _pass_on(wakeups: AsyncIterator[None], woken: asyncio.Event) -> None:
    """Sets the event at every wake-up, and when there are no more."""
    try:
        async for _ in wakeups:
            woken.set()
    finally:
        woken.set()


def _cut(fetched: Slots, span_s: float) -> tuple[Slots, Slots]:
    """What the caller asked for, at least one slot, and the rest."""
    slots = min(fetched.slots, max(1, int(span_s / fetched.interval_s)))
    behind_s = fetched.first_in_s + slots * fetched.interval_s
    rest = replace(fetched, first_in_s=behind_s, slots=fetched.slots - slots)
    return replace(fetched, slots=slots), rest


async def _name(store: Store, tokens: Callable[[], str]) -> str:
    """The store's name in Redis, made up once: several stores may share a server."""
    if not (kept := await store.notes(_NOTE)):
        await store.note(_NOTE, msgspec.json.encode(tokens()))
        kept = await store.notes(_NOTE)
    return msgspec.json.decode(kept[_NOTE], type=str)
