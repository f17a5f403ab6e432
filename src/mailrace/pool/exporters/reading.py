"""Asks a pool for its numbers, from whatever thread."""

import asyncio
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass

from mailrace.errors import MisuseError
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
    answer: Future[Reading | None] = Future()

    def read() -> None:
        if not answer.set_running_or_notify_cancel():
            return
        try:
            answer.set_result(Reading(numbers=pool.numbers(), health=pool.health()))
        except Exception as error:  # noqa: BLE001 - it is raised where it was asked for
            answer.set_exception(error)

    loop = _loop_of(pool)
    if loop is None:
        answer.set_result(None)
    elif loop is _running_loop():
        read()
    else:
        try:
            loop.call_soon_threadsafe(read)
        except RuntimeError:  # it was closed this moment
            answer.set_result(None)
    return answer


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


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
