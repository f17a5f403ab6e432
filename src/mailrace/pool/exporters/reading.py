"""Asks a pool for its numbers, from whatever thread."""

import asyncio
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass

from mailrace.errors import MisuseError
from mailrace.pool import asking
from mailrace.pool.health import Health
from mailrace.pool.numbers import Numbers
from mailrace.pool.pool import Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a pool says of itself at one moment."""

    numbers: Numbers
    health: Health


def ask(pool: Pool) -> Future[Reading | None]:
    """Has the numbers of a pool read on its own loop, where nothing changes under the reader.

    Returns:
        At once what will hold them, or hold `None`: the pool was not started, or its loop runs no
        more. In the pool's own thread it is done already. A loop that hangs leaves it undone.
    """
    loop = _loop_of(pool)
    answer = None if loop is None else asking.ask(loop, lambda: _read(pool))
    if answer is None:
        answer = Future()
        answer.set_result(None)
    return answer


def _read(pool: Pool) -> Reading | None:
    return Reading(numbers=pool.numbers(), health=pool.health())


def by_name(pools: Iterable[Pool]) -> dict[str, Pool]:
    """Pools by their names.

    Raises:
        MisuseError: There is none, or two have one name.
    """
    named: dict[str, Pool] = {}
    for pool in pools:
        if pool.name in named:
            raise MisuseError(f"two pools are called {pool.name!r}", hint="give Pool(name=...)")
        named[pool.name] = pool
    if not named:
        raise MisuseError("there is no pool to export", hint="give at least one")
    return named


def _loop_of(pool: Pool) -> asyncio.AbstractEventLoop | None:
    try:
        loop = pool.engine.loop
    except MisuseError:
        return None
    return loop if loop.is_running() else None
