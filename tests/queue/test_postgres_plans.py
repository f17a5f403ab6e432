"""The indexes that PostgreSQL really takes, with much that is waiting and much that is past."""

import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import psycopg
import pytest

from mailrace.queue.stores.postgres.database import statement
from mailrace.queue.stores.postgres.migrate import migrate
from tests.support.postgres import Databases

WAITING = 100_000
_FILL = f"""
INSERT INTO mailrace.processes (
    journal, expires_at, started_at, heartbeat_at, pid, concurrency, node, host, version,
    supervisor, queues
) SELECT 'journal', now() + '1 h', now(), now(), 1, 1, '', '', '', '', '{{}}'
FROM generate_series(1, 5);
INSERT INTO mailrace.jobs (queue, tenant, priority, run_at, kind, batch_id, unique_digest, payload)
SELECT
    'q' || n % 3, 't' || n % 50, 0, now() + (n % 1000 - 900) * interval '1 second', 'kind',
    CASE WHEN n % 10 = 0 THEN 7 END, CASE WHEN n % 20 = 0 THEN md5(n::text)::uuid END, '{{}}'
FROM generate_series(1, {WAITING}) AS n;
INSERT INTO mailrace.jobs (queue, kind, state, process_id, lease, payload)
SELECT 'q1', 'kind', 'running', 1 + n % 5, n, '{{}}' FROM generate_series(1, 2000) AS n;
INSERT INTO mailrace.keys (digest, job_id) SELECT md5(n::text)::uuid, n
FROM generate_series(1, {WAITING}) AS n;
INSERT INTO mailrace.jobs_ended (
    id, state, ended_at, created_at, run_at, lease, batch_id, priority, attempt, deaths, snoozes,
    queue, tenant, kind, category, reason, detail, payload
)
SELECT 1000000 + n, 'failed', now(), now(), now(), n, n % 100, 0, 1, 0, 0, 'q1', '', 'kind', '',
    'reason', '', '{{}}'
FROM generate_series(1, {WAITING}) AS n;
"""
_COMPLETED = f"""
INSERT INTO mailrace.jobs_completed (
    id, ended_at, created_at, run_at, lease, priority, attempt, deaths, snoozes, queue, tenant,
    kind, reason, detail, payload
)
SELECT n, now(), now(), now(), n, 0, 1, 0, 0, 'q1', '', 'kind', '', '', '{{}}'
FROM generate_series(1, {WAITING}) AS n;
""".encode()
_RECORDS = '[{"id": 100001, "lease": 1, "step": "complete"}]'
_VALUES: dict[str, dict[str, Any]] = {
    "claim": {
        "queues": ["q1", "q2"], "tenants": ["t1", "t2"], "priorities": [0, 0], "jobs": [50, 50],
        "since_ms": [None, None], "once": [], "process_id": 1,
    },
    "survey": {"queues": ["q0", "q1"], "after": [None, "t20"], "most": 256},
    "queues_waiting": {},
    "finish_completed": {"records": _RECORDS},
    "finish": {"records": _RECORDS, "deaths_max": 3},
    "begin": {"ids": [100001], "leases": [1], "process_id": 1},
    "held_by": {"process_id": 1, "trusted": True},
    "process_retire": {"process_id": 1},
    "report": {"batch_id": 7},
    "reasons": {"batch_id": 7},
    "payloads": {"after_id": 50_000, "limit": 500, "most_bytes": 1_000_000},
    "payload_replace": {"ids": [7, 100_001, 1_000_007], "leases": [0] * 3, "payloads": ["{}"] * 3},
}  # fmt: skip


@pytest.fixture(scope="module")
def full(postgres_databases: Databases) -> Iterator[psycopg.Connection]:
    """A store with a hundred thousand jobs of each sort, and fresh statistics."""
    with postgres_databases.fresh_database() as dsn:
        migrate(dsn)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(_FILL.encode())
            connection.execute("VACUUM ANALYZE")
            yield connection


def plan(connection: psycopg.Connection, name: str, *, run: bool = False) -> str:
    explain = b"EXPLAIN (ANALYZE, TIMING OFF) " if run else b"EXPLAIN "
    with connection.transaction(force_rollback=True):
        rows = connection.execute(explain + statement(name), {"now": None, **_VALUES[name]})
        return "\n".join(line for (line,) in rows.fetchall())


@pytest.mark.parametrize("name", _VALUES)
def test_no_postgres_statement_goes_through_all_jobs(full: psycopg.Connection, name: str) -> None:
    assert not re.search(r"Seq Scan on (jobs|jobs_ended|keys)\b", plan(full, name))


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("claim", "jobs_ready"), ("claim", "jobs_pkey"), ("survey", "jobs_ready"),
        ("queues_waiting", "jobs_ready"), ("finish_completed", "jobs_pkey"),
        ("finish", "jobs_pkey"), ("begin", "jobs_pkey"), ("held_by", "jobs_running"),
        ("process_retire", "jobs_running"), ("report", "jobs_batch"),
        ("reasons", "jobs_ended_batch"), ("payloads", "jobs_pkey"), ("payloads", "jobs_ended_pkey"),
        ("payload_replace", "jobs_pkey"), ("payload_replace", "jobs_ended_pkey"),
    ],
)  # fmt: skip
def test_a_postgres_statement_takes_the_index_made_for_it(
    full: psycopg.Connection, name: str, index: str
) -> None:
    assert re.search(rf"(using|on) {index}\b", plan(full, name))
    assert index in header(name)


@pytest.mark.parametrize("name", ["payloads", "payload_replace"])
def test_postgres_finds_the_payloads_of_completed_jobs_by_their_numbers(
    full: psycopg.Connection, name: str
) -> None:
    """Whatever the day: the index of every partition is asked, and sorted is nothing."""
    with full.transaction(force_rollback=True):
        full.execute(_COMPLETED)
        full.execute("ANALYZE mailrace.jobs_completed")
        ((day,),) = full.execute(
            "SELECT DISTINCT tableoid::regclass::text FROM mailrace.jobs_completed"
        ).fetchall()
        table = day.removeprefix("mailrace.")
        found = plan(full, name)
    assert f"Seq Scan on {table}" not in found
    assert re.search(rf"(using|on) {table}_id_idx\b", found)
    assert not re.search(r"->  Sort\b", found)


def header(name: str) -> str:
    folder = files("mailrace.queue.stores.postgres").joinpath("sql")
    return folder.joinpath(f"{name}.sql").read_text(encoding="utf-8").partition("\n")[0]


@pytest.mark.parametrize("name", ["finish_completed", "finish", "begin"])
def test_postgres_finds_what_ended_by_its_id_though_nothing_seems_to_run(
    full: psycopg.Connection, name: str
) -> None:
    """Statistics made in a quiet moment have the index of running jobs look cheap."""
    with full.transaction(force_rollback=True):
        full.execute("UPDATE mailrace.jobs SET state = 'available' WHERE state = 'running'")
        full.execute("ANALYZE mailrace.jobs")
        assert "jobs_running" not in plan(full, name)


def test_postgres_walks_to_the_first_jobs_of_a_flow_and_sorts_nothing(
    full: psycopg.Connection,
) -> None:
    lines = plan(full, "claim", run=True).splitlines()
    scan = next(place for place, line in enumerate(lines) if "using jobs_ready" in line)
    assert re.search(r"rows=50(\.00)? loops=2", lines[scan])  # PostgreSQL 18 writes fractions
    assert not any("Sort" in line for line in lines[scan - 4 : scan])
    condition = lines[scan + 1]
    for column in ("queue", "tenant", "priority", "run_at"):
        assert column in condition


def test_a_postgres_survey_reads_one_entry_a_flow(full: psycopg.Connection) -> None:
    rows = re.findall(
        r"using jobs_ready on jobs \w*.*rows=(\S+) loops", plan(full, "survey", run=True)
    )
    assert rows
    assert all(float(found) <= 1 for found in rows)
