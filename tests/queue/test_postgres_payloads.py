"""What is PostgreSQL's own about replacing payloads: rows in other hands, days of the past."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import psycopg
import pytest

from mailrace.queue import JobState, Step, Store
from mailrace.queue.storedpayloads import PayloadChange
from mailrace.queue.stores.postgres.database import statement
from tests.queue.houses import PostgresEstate, PostgresHouse, add, claim_of, ended, enter

LIMIT_S = 20.0


@pytest.fixture
async def house(postgres_estate: PostgresEstate) -> AsyncIterator[PostgresHouse]:
    found = postgres_estate.house()
    yield found
    await found.close()


@pytest.fixture
async def store(house: PostgresHouse) -> Store:
    return await house.opened()


async def test_a_payload_in_other_hands_is_passed_over_and_not_waited_for(
    house: PostgresHouse, store: Store
) -> None:
    waiting, failed, completed, free = [
        await add(store, name, queue=name) for name in ("waiting", "failed", "completed", "free")
    ]
    process_id = await enter(store)
    failing = await claim_of(store, process_id, queue="failed")
    completing = await claim_of(store, process_id, queue="completed")
    await store.finish(ended(failing, Step.FAIL, at_ms=await store.now_ms()))
    await store.finish(ended(completing, at_ms=await store.now_ms()))
    changes = [PayloadChange(one.id, one.lease, b"1") for one in await store.payloads(0)]
    assert len(changes) == 4
    with psycopg.connect(house.dsn) as other:
        for table in ("jobs", "jobs_ended", "jobs_completed"):
            sql = f"SELECT FROM mailrace.{table} WHERE queue <> 'free' FOR UPDATE"
            other.execute(sql.encode())
        async with asyncio.timeout(LIMIT_S):
            assert await store.replace_payloads(changes) == free
    assert sorted(await store.replace_payloads(changes)) == [*waiting, *failed, *completed, *free]


async def test_a_job_that_ends_while_its_payload_is_replaced_is_whole(
    house: PostgresHouse, store: Store
) -> None:
    """While the move is not committed the row is neither here nor there."""
    (job_id,) = await add(store, "x")
    (waiting,) = await store.payloads(0)
    late = PayloadChange(job_id, waiting.lease, b"1")
    records = [{"id": job_id, "lease": 7, "reason": "", "detail": ""}]
    with psycopg.connect(house.dsn) as other:
        other.execute(
            "UPDATE mailrace.jobs SET state = 'running', lease = 7 WHERE id = %s", [job_id]
        )
        values = {"records": msgspec.json.encode(records).decode(), "now": None}
        other.execute(statement("finish_completed"), values)
        async with asyncio.timeout(LIMIT_S):
            assert await store.replace_payloads([late]) == []
            assert await store.payloads(0) == [waiting]
        other.commit()
    (moved,) = await store.payloads(0)
    assert moved == msgspec.structs.replace(waiting, state=JobState.COMPLETED, lease=7)
    assert house.select("SELECT id FROM mailrace.jobs_completed") == [(job_id,)]
    assert await store.replace_payloads([late]) == []
    assert await store.replace_payloads([PayloadChange(job_id, 7, b"1")]) == [job_id]
    (moved,) = await store.payloads(0)
    assert bytes(moved.payload) == b"1"
