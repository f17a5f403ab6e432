"""Bare batched SQL: what the stores themselves can do for a queue, with nothing around it.

One narrow table, one index on what is available, no history apart, no keys, no counts, no journal
and no fences: the least that could be called a queue. Inserts by COPY or `json_each`, claims and
finishes by one statement each, every commit on disk before it returns; in batches of 500 on
PostgreSQL (inserts of 5,000, as the public bulk call), of 100 on SQLite.
"""

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import msgspec
import psycopg

BATCH = 500
INSERT_BATCH = 5000
SQLITE_BATCH = 100
_POSTGRES = """
CREATE TABLE bare (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, state smallint NOT NULL DEFAULT 0,
    queue text NOT NULL DEFAULT 'default', priority smallint NOT NULL DEFAULT 0,
    run_at timestamptz NOT NULL DEFAULT now(), attempt smallint NOT NULL DEFAULT 0,
    payload json NOT NULL, lease timestamptz
);
CREATE INDEX ON bare (queue, priority, run_at, id) WHERE state = 0
"""
_CLAIM = """
WITH chosen AS (
    SELECT id FROM bare WHERE state = 0 AND queue = 'default' AND run_at <= now()
    ORDER BY priority, run_at, id LIMIT %s FOR UPDATE SKIP LOCKED
)
UPDATE bare AS j SET state = 1, attempt = attempt + 1, lease = now() + interval '30 s'
FROM chosen WHERE j.id = chosen.id RETURNING j.id, j.payload::text
"""
_FINISH = "UPDATE bare SET state = 2, lease = NULL WHERE id = ANY (%s::bigint[])"
_SQLITE = """
CREATE TABLE bare (
    id INTEGER PRIMARY KEY, state INTEGER DEFAULT 0, queue TEXT DEFAULT 'default',
    priority INTEGER DEFAULT 0, run_at REAL DEFAULT 0, attempt INTEGER DEFAULT 0, payload TEXT,
    lease REAL
);
CREATE INDEX bare_ready ON bare (queue, priority, run_at, id) WHERE state = 0;
"""
_SQLITE_CLAIM = """
UPDATE bare SET state = 1, attempt = attempt + 1, lease = 1 WHERE id IN (
    SELECT id FROM bare WHERE state = 0 AND queue = 'default' AND run_at <= 1
    ORDER BY priority, run_at, id LIMIT ?
) RETURNING id, payload
"""


def payloads(jobs: int) -> list[str]:
    return [f'{{"to":"user{number}@example.net","n":{number}}}' for number in range(jobs)]


def postgres_rates(dsn: str, jobs: int) -> tuple[float, float]:
    """Inserts, and claims with finishes, a second."""
    return asyncio.run(_postgres_rates(dsn, jobs))


async def _postgres_rates(dsn: str, jobs: int) -> tuple[float, float]:
    connect = psycopg.AsyncConnection.connect
    async with await connect(dsn, autocommit=True) as one, await connect(dsn) as two:
        await two.set_autocommit(True)
        await one.execute(_POSTGRES)
        given = payloads(jobs)
        began_s = time.perf_counter()
        for start in range(0, jobs, INSERT_BATCH):
            part = given[start : start + INSERT_BATCH]
            async with one.cursor().copy("COPY bare (payload) FROM STDIN") as copy:
                await copy.write("\n".join((*part, "")))
        inserted = jobs / (time.perf_counter() - began_s)
        began_s = time.perf_counter()
        await asyncio.gather(_work(one), _work(two))
        return inserted, jobs / (time.perf_counter() - began_s)


async def _work(connection: psycopg.AsyncConnection) -> None:
    async with connection.cursor(binary=True) as cursor:
        while True:
            await cursor.execute(_CLAIM, (BATCH,), prepare=True)
            claimed = await cursor.fetchall()
            if not claimed:
                return
            await cursor.execute(_FINISH, ([row[0] for row in claimed],), prepare=True)


def sqlite_rates(folder: Path, jobs: int) -> tuple[float, float]:
    """Inserts, and claims with finishes, a second."""
    path = folder / "bare.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(_SQLITE)
        given = payloads(jobs)
        began_s = time.perf_counter()
        for start in range(0, jobs, SQLITE_BATCH):
            part = msgspec.json.encode(given[start : start + SQLITE_BATCH]).decode()
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO bare (payload) SELECT value FROM json_each(?)", (part,))
            connection.execute("COMMIT")
        inserted = jobs / (time.perf_counter() - began_s)
        began_s = time.perf_counter()
        while claimed := connection.execute(_SQLITE_CLAIM, (SQLITE_BATCH,)).fetchall():
            ids = msgspec.json.encode([row[0] for row in claimed]).decode()
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "UPDATE bare SET state = 2, lease = NULL"
                " WHERE id IN (SELECT value FROM json_each(?))",
                (ids,),
            )
            connection.execute("COMMIT")
        worked = jobs / (time.perf_counter() - began_s)
    for file in folder.glob("bare.db*"):
        file.unlink()
    return inserted, worked
