"""Slots of limits on their way from the store to their users, kept in Redis for a second."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum
from functools import partial
from importlib.resources import files
from typing import Any, Final

from mailrace.errors import UnavailableError
from mailrace.pool.limiter import Slots
from mailrace.queue.stores.redis_cache.server import Client, Server

# Longer than the slowest answer of a store that is worth asking; until then all others ask the
# store themselves, as they would without a cache.
_TURN_S: Final = 5.0
# Shorter than a pace takes to come back, so that the same pace for the second time is news.
_PACE_S: Final = 30


class Source(Enum):
    """Where slots are to come from if there are none here."""

    FETCH = "fetch"
    """From the store, and more than the caller needs: the rest is put here."""
    STORE = "store"
    """From the store: there is no cache now, or somebody is fetching."""


class Slices:
    """What is left of the slots that somebody fetched, by limit.

    Whatever goes wrong, slots are lost and never given out twice: they are taken from the store
    first, put here once, and popped before they are answered.

    Args:
        prefix: Of the keys; another one for each store.
        now: What the server takes for its present; empty: its own clock.
    """

    def __init__(self, server: Server, prefix: str, *, now: Callable[[], str] = str) -> None:
        self._server = server
        self._prefix = prefix
        self._now = now
        self._scripts = {name: _text(name) for name in ("slots_take", "slots_put", "slots_slow")}

    async def take(self, name: str, span_s: float, token: str) -> Slots | Source:
        """Slots for about so many seconds, at least one, or where they are to come from."""
        try:
            what, *found = await self._ask("slots_take", name, span_s, token, _TURN_S)
        except UnavailableError:
            return Source.STORE
        if what != b"slots":
            return Source.FETCH if what == b"fetch" else Source.STORE
        first_in_s, interval_s, grace_s, slots = map(float, found)
        return Slots(
            first_in_s=first_in_s, interval_s=interval_s, grace_s=grace_s, slots=int(slots)
        )

    async def put(self, name: str, slots: Slots, token: str) -> bool:
        """Keeps slots for others; false if they are lost, or may be."""
        values = (slots.first_in_s, slots.interval_s, slots.grace_s)
        try:
            return bool(await self._ask("slots_put", name, token, *values, slots.slots))
        except UnavailableError:
            return False

    async def drop(self, name: str) -> None:
        """Forgets a limit's slots, those that are being fetched as well."""
        with suppress(UnavailableError):
            await self._server.ask(lambda client: client.delete(self._key(name)))

    async def slow(self, name: str, pace: float) -> None:
        """Forgets a limit's slots if its pace is new."""
        keys = [self._key(name), f"{self._prefix}:pace:{name}"]
        with suppress(UnavailableError):
            await self._server.ask(partial(self._run, "slots_slow", keys, [str(pace), _PACE_S]))

    def _key(self, name: str) -> str:
        return f"{self._prefix}:limit:{name}"

    async def _ask(self, script: str, name: str, *values: object) -> Any:
        arguments = [*map(str, values), self._now()]
        return await self._server.ask(partial(self._run, script, [self._key(name)], arguments))

    async def _run(
        self, script: str, keys: list[str], arguments: Sequence[object], client: Client
    ) -> Any:
        # Loaded by itself where the server does not know it.
        return await client.register_script(self._scripts[script])(keys=keys, args=arguments)


def _text(name: str) -> str:
    return files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
