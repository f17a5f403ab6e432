"""Many jobs at once on PostgreSQL: by COPY they become what they would have become one by one."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.rows import dict_row

from mailrace.errors import ConflictError, MisuseError
from mailrace.queue.figures import QueueFigures
from mailrace.queue.jobs import Lane, NewJob
from mailrace.queue.queuerules import QueueRules
from mailrace.queue.states import JobState
from mailrace.queue.stores.postgres import PostgresStore
from mailrace.queue.stores.postgres.copyrows import JOBS_MIN, CopyRows
from mailrace.queue.stores.postgres.migrate import migrate

PRESENT = "2026-01-01 00:00:00+00"
COLUMNS = 12
TEXT = st.text(alphabet=st.sampled_from("a\\\t\n\r N.ä😀"), max_size=6)
WHOLE = st.none() | st.integers(1, 9)


def job(payload: object = None, **fields: Any) -> NewJob:
    return NewJob(kind="kind", payload=msgspec.Raw(msgspec.json.encode(payload)), **fields)


JOBS = st.builds(
    job,
    payload=TEXT,
    queue=TEXT,
    tenant=TEXT,
    priority=st.integers(-9, 9),
    batch_id=WHOLE,
    attempts=WHOLE,
    lane=st.none() | st.sampled_from(Lane),
    key=st.none() | TEXT.filter(bool),
)


def read(text: bytes) -> list[list[str | None]]:
    """What COPY reads (postgresql.org/docs/18/sql-copy.html, Text Format)."""
    return [[field(part) for part in row.split(b"\t")] for row in text.split(b"\n")[:-1]]


def field(part: bytes) -> str | None:
    if part == b"\\N":
        return None
    plain = {"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}
    characters = iter(part.decode())
    return "".join(plain[next(characters)] if one == "\\" else one for one in characters)


@pytest.fixture
async def store(postgres_dsn: str) -> AsyncIterator[PostgresStore]:
    opened = await PostgresStore.open(postgres_dsn)
    yield opened
    await opened.close()


async def figures(store: PostgresStore) -> dict[str, QueueFigures]:
    return {one.queue: one for one in await store.queue_figures()}


@given(st.lists(JOBS, min_size=1, max_size=5))
def test_copy_reads_what_the_jobs_say(jobs: list[NewJob]) -> None:
    jobs = (jobs * JOBS_MIN)[:JOBS_MIN]
    rows = CopyRows.of(jobs)
    assert rows is not None
    ids = range(1, 1 + len(jobs))
    found = read(b"".join(rows.blocks(ids, PRESENT)))
    assert found == [
        [
            str(job_id), PRESENT, PRESENT, one.kind, one.queue, one.tenant, str(one.priority),
            *(None if value is None else str(value) for value in (one.batch_id, one.attempts)),
            one.lane, one.key, bytes(one.payload).decode(),
        ]
        for job_id, one in zip(ids, jobs, strict=True)
    ]  # fmt: skip
    assert {len(row) for row in found} == {COLUMNS}


@pytest.mark.parametrize(
    "other",
    [
        job(unique="a"),
        job(idempotency="a"),
        job(run_at_ms=1),
        job(delay_ms=1),
        job(expires_at_ms=1),
        job(expires_in_ms=1),
        job(expires_in_ms=0),
        job(unique=""),
        job(tags=("a",)),
        job(priority=10),
        job(attempts=0),
        job(attempts=40_000),
        job(key="\0"),
        job(tenant="\0"),
        NewJob(kind="", payload=msgspec.Raw(b"1")),
        NewJob(kind="kind", payload=msgspec.Raw(b'"\\ud83d"')),
        NewJob(kind="kind", payload=msgspec.Raw(b'"\\u0000"')),
    ],
)
def test_a_job_that_needs_more_than_a_row_goes_another_way(other: NewJob) -> None:
    assert CopyRows.of([job()] * JOBS_MIN) is not None
    assert CopyRows.of([job()] * JOBS_MIN + [other]) is None


def test_a_few_jobs_go_another_way() -> None:
    assert CopyRows.of([job()] * (JOBS_MIN - 1)) is None


async def test_copied_jobs_are_what_others_are(store: PostgresStore, postgres_dsn: str) -> None:
    batch = await store.open_batch("batch", "kind", b"{}")
    nasty = job(
        {"a\\b": 'c\t"d"\n', "ä": "😀 \\N \\."},
        queue="a\tb",
        tenant="c\\d",
        priority=-9,
        attempts=7,
        lane=Lane.CAMPAIGN,
        key="\\N",
        batch_id=batch.id,
    )
    loose = NewJob(kind="kind", payload=msgspec.Raw(b'{\n\t"a":  1 }'))
    jobs = [nasty, loose] * (JOBS_MIN // 2)
    answers = [*await store.enqueue(jobs), *await store.enqueue(jobs[:2])]
    assert all(answer.new for answer in answers)
    async with (
        await psycopg.AsyncConnection.connect(postgres_dsn) as connection,
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        await cursor.execute("SELECT j.*, j.payload::text FROM mailrace.jobs AS j ORDER BY id")
        rows = await cursor.fetchall()
    assert [row.pop("id") for row in rows] == [answer.id for answer in answers]
    for row in rows:
        assert row.pop("created_at") == row.pop("run_at")
    assert rows[:-2] == rows[-2:] * (JOBS_MIN // 2)
    jobs_each = JOBS_MIN // 2 + 1
    found = await figures(store)
    assert {name: one.counts[JobState.AVAILABLE] for name, one in found.items()} == {
        "a\tb": jobs_each,
        "default": jobs_each,
    }


async def test_a_queue_that_drains_takes_no_copied_job(store: PostgresStore) -> None:
    await store.set_queue(QueueRules(name="other", draining=True))
    with pytest.raises(ConflictError, match="the queue 'other' is draining"):
        await store.enqueue([job()] * JOBS_MIN + [job(queue="other")])
    assert await figures(store) == {}


async def test_a_sealed_batch_takes_no_copied_job(store: PostgresStore) -> None:
    batch = await store.open_batch("batch", "kind", b"{}")
    await store.seal_batch(batch.id)
    for batch_id in (batch.id, batch.id + 1):
        with pytest.raises(ConflictError, match="sealed or not known"):
            await store.enqueue([job()] * JOBS_MIN + [job(batch_id=batch_id)])
    assert await figures(store) == {}


async def test_a_batch_is_sealed_before_jobs_are_copied_into_it_or_after(
    store: PostgresStore,
) -> None:
    for number in range(10):
        batch = await store.open_batch(f"batch {number}", "kind", b"{}")
        enqueuing = asyncio.create_task(store.enqueue([job(batch_id=batch.id)] * JOBS_MIN))
        await store.seal_batch(batch.id)
        refused = isinstance(
            *await asyncio.gather(enqueuing, return_exceptions=True), ConflictError
        )
        report = await store.report(batch.id)
        assert sum(report.counts.values()) == (0 if refused else JOBS_MIN)


async def test_a_copy_that_the_server_refuses_adds_nothing(store: PostgresStore) -> None:
    broken = NewJob(kind="kind", payload=msgspec.Raw(b'{"a":'))
    with pytest.raises(MisuseError, match="json"):
        await store.enqueue([job()] * JOBS_MIN + [broken])
    assert await figures(store) == {}
    assert len(await store.enqueue([job()] * JOBS_MIN)) == JOBS_MIN


@pytest.mark.parametrize(
    "setting",
    ["client_encoding = LATIN1", "DateStyle = 'SQL, DMY'", "DateStyle = German"],
)
async def test_what_is_copied_does_not_depend_on_the_settings_of_a_session(
    postgres_dsn: str, setting: str
) -> None:
    migrate(postgres_dsn)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE \"{name}\" SET TimeZone = 'Asia/Manila'".encode())
        connection.execute(f'ALTER DATABASE "{name}" SET {setting}'.encode())
    store = await PostgresStore.open(postgres_dsn)
    there = job({"to": "Zürich"}, tenant="Bär")
    await store.enqueue([there] * JOBS_MIN)
    await store.enqueue([there])
    with psycopg.connect(postgres_dsn, client_encoding="utf8") as connection:
        rows = connection.execute(
            "SELECT DISTINCT tenant, payload::text, run_at BETWEEN now() - interval '1 minute' AND"
            " now(), created_at = run_at FROM mailrace.jobs"
        ).fetchall()
    assert rows == [("Bär", '{"to":"Zürich"}', True, True)]
    await store.close()
