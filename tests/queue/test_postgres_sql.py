"""The SQL of the PostgreSQL store: its files, and the functions that anybody may call."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from threading import Barrier
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg.rows import dict_row

from mailrace.clock import SystemClock
from mailrace.queue.jobrows import JobFilter
from mailrace.queue.jobs import key_digest
from mailrace.queue.stores.postgres import database
from mailrace.queue.stores.postgres.database import statement
from mailrace.queue.stores.postgres.desk import _values
from mailrace.queue.stores.postgres.migrate import migrate
from mailrace.queue.stores.postgres.plans import PREPARED

PACKAGE = files("mailrace.queue.stores.postgres")
HEADER = re.compile(r"-- lock: [^;]+(; index: [^;]+)?(; guard: .+)?")
FRAGMENT_HEADER = re.compile(r"-- needs: [^;]+; gives: [^;]+")
REFERENCE = re.compile(r"^ *-- fragment: (\w+)$", re.MULTILINE)


def texts(folder: str) -> dict[str, str]:
    return {
        path.name.removesuffix(".sql"): path.read_text(encoding="utf-8")
        for path in PACKAGE.joinpath(folder).iterdir()
    }


STATEMENTS = texts("sql")
FRAGMENTS = texts("fragments")
NAMES = sorted(STATEMENTS)


@pytest.fixture
def connection(postgres_dsn: str) -> Iterator[psycopg.Connection]:
    migrate(postgres_dsn)
    with psycopg.connect(postgres_dsn, autocommit=True) as opened:
        yield opened


# Files


@pytest.mark.parametrize("name", NAMES)
def test_a_postgres_file_says_how_it_locks_finds_and_guards(name: str) -> None:
    assert HEADER.fullmatch(STATEMENTS[name].partition("\n")[0])


def test_every_postgres_file_is_used() -> None:
    code = "".join(
        path.read_text(encoding="utf-8") for path in PACKAGE.iterdir() if path.name.endswith(".py")
    )
    assert [name for name in NAMES if f'"{name}"' not in code] == []


@pytest.mark.parametrize("name", [name for name in NAMES if name != "retain_ended"])
def test_no_postgres_file_asks_for_a_state_that_is_a_parameter(name: str) -> None:
    """A partial index is not used for one; jobs_ended_state is none."""
    assert not re.search(r"\bstate (=|IN) \(?%\(", statement(name).decode())


@pytest.mark.parametrize("name", NAMES)
def test_no_postgres_file_leaves_something_in_the_session(name: str) -> None:
    assert not re.search(
        r"\b(SET SESSION|SET (?!LOCAL)\w+ TO|LISTEN|PREPARE|TEMP|pg_advisory_lock)\b",
        statement(name).decode(),
    )


# Parts


@pytest.mark.parametrize("name", FRAGMENTS)
def test_a_postgres_fragment_says_what_it_needs_and_gives(name: str) -> None:
    assert FRAGMENT_HEADER.fullmatch(FRAGMENTS[name].partition("\n")[0])


def test_every_postgres_fragment_is_used_in_two_places_or_more() -> None:
    uses = [use for text in (STATEMENTS | FRAGMENTS).values() for use in REFERENCE.findall(text)]
    assert [name for name in FRAGMENTS if uses.count(name) < 2] == []


def test_no_name_is_that_of_a_postgres_file_and_of_a_fragment() -> None:
    assert STATEMENTS.keys().isdisjoint(FRAGMENTS)


@pytest.mark.parametrize("name", [*NAMES, *FRAGMENTS])
def test_whatever_looks_like_a_fragment_s_place_in_a_postgres_file_is_one(name: str) -> None:
    """Any other comment is left out of the statement without a word."""
    text = (STATEMENTS | FRAGMENTS)[name]
    assert len(re.findall(r"--\s*fragments?\b", text, re.IGNORECASE)) == len(
        REFERENCE.findall(text)
    )
    assert set(REFERENCE.findall(text)) <= FRAGMENTS.keys()


@pytest.mark.parametrize("name", NAMES)
def test_a_postgres_statement_has_all_its_fragments_and_no_comment(name: str) -> None:
    whole = re.sub(r"\s+", " ", statement(name).decode())
    assert "--" not in whole
    for fragment in REFERENCE.findall(STATEMENTS[name]):
        for line in REFERENCE.sub("", FRAGMENTS[fragment]).splitlines():
            assert line.lstrip().startswith("--") or line.strip() in whole


def test_what_is_to_be_prepared_is_a_postgres_statement() -> None:
    assert set(NAMES) >= PREPARED


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of its own, without files."""
    for folder in ("sql", "fragments"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(database, "files", lambda name: tmp_path)
    return tmp_path


def test_a_fragment_stands_as_far_in_as_its_line_and_may_have_others(package: Path) -> None:
    (package / "sql/whole.sql").write_text("-- lock: none\nSELECT (\n    -- fragment: outer\n)\n")
    (package / "fragments/outer.sql").write_text(
        "-- needs: x; gives: y\n1\n  -- fragment: inner\n+ 4\n"
    )
    (package / "fragments/inner.sql").write_text("-- needs: x; gives: y\n+ 2\n    + 3\n")
    assert statement.__wrapped__("whole").decode().splitlines() == [
        "SELECT (", "    1", "      + 2", "          + 3", "    + 4", ")",
    ]  # fmt: skip


def test_a_fragment_that_is_not_known_is_an_error_at_once(package: Path) -> None:
    (package / "sql/whole.sql").write_text("SELECT\n    -- fragment: nothing\n")
    with pytest.raises(FileNotFoundError, match=r"fragments.nothing\.sql"):
        statement.__wrapped__("whole")


@pytest.mark.parametrize("name", ["expire", "cancel", "reschedule"])
def test_the_next_of_a_key_is_let_in_for_each_that_leaves_and_was_not_blocked(
    connection: psycopg.Connection, name: str
) -> None:
    connection.execute("""
        INSERT INTO mailrace.jobs (id, kind, key, blocked, run_at, expires_at, payload) VALUES
            (1, 'let in', 'k', false, now() - interval '4 hours', now(), '{}'),
            (2, 'leaves as well', 'k', true, now() - interval '3 hours', now(), '{}'),
            (3, 'next', 'k', true, now() - interval '2 hours', NULL, '{}'),
            (4, 'behind it', 'k', true, now() - interval '1 hour', NULL, '{}')
    """)
    values = _values(JobFilter(ids=(1, 2))) | {"now": None, "limit": 10, "delay_ms": 0}
    (answer,) = connection.execute(statement(name), values).fetchall()
    assert set(answer) == {2}
    rows = connection.execute("SELECT id, blocked FROM mailrace.jobs WHERE id > 2 ORDER BY id")
    assert rows.fetchall() == [(3, False), (4, True)]


# mailrace.enqueue


def enqueue(connection: psycopg.Connection, arguments: str) -> list[Any]:
    return connection.execute(f"SELECT * FROM mailrace.enqueue({arguments})".encode()).fetchall()


def job(connection: psycopg.Connection) -> dict[str, Any]:
    with connection.cursor(row_factory=dict_row) as cursor:
        (row,) = cursor.execute("SELECT * FROM mailrace.jobs").fetchall()
        return row


def test_one_call_of_plain_sql_on_postgres_adds_a_job(connection: psycopg.Connection) -> None:
    ((job_id, created),) = enqueue(connection, """'welcome', '{"to": "ann@example.com"}'""")
    assert created
    row = job(connection)
    assert row["id"] == job_id
    assert (row["kind"], row["queue"], row["state"]) == ("welcome", "default", "available")
    assert row["payload"] == {"to": "ann@example.com"}
    tallies = connection.execute("SELECT queue, state, jobs FROM mailrace.tallies").fetchall()
    assert tallies == [("default", "available", 1)]


def test_all_fields_can_be_given_in_postgres_sql_by_name(connection: psycopg.Connection) -> None:
    enqueue(
        connection,
        "kind => 'welcome', payload => '[1]', queue => 'mail', tenant => 'ann', priority => 3,"
        " delay => '1 hour', expires_in => '2 hours', unique_key => 'u', key => 'k',"
        " tags => '{a,b}', attempts => 5, lane => 'campaign', idempotency_key => 'i'",
    )
    row = job(connection)
    assert (row["queue"], row["tenant"], row["priority"], row["state"]) == (
        "mail", "ann", 3, "scheduled",
    )  # fmt: skip
    assert (row["run_at"] - row["created_at"]).total_seconds() == 3600
    assert (row["expires_at"] - row["created_at"]).total_seconds() == 7200
    assert (row["key"], row["tags"], row["attempts"], row["lane"]) == (
        "k", ["a", "b"], 5, "campaign",
    )  # fmt: skip
    assert row["unique_digest"].hex == key_digest("welcome", "u")
    digests = connection.execute("SELECT digest FROM mailrace.keys").fetchall()
    assert [digest.hex for (digest,) in digests] == [key_digest("welcome", "i")]


def test_postgres_jobs_can_be_given_for_a_moment(connection: psycopg.Connection) -> None:
    enqueue(connection, "'kind', run_at => '2040-01-01 00:00Z', expires_at => '2040-01-02 00:00Z'")
    row = job(connection)
    assert (row["run_at"].year, row["expires_at"].day, row["state"]) == (2040, 2, "scheduled")


def test_a_null_character_in_a_payload_is_kept_by_postgres(connection: psycopg.Connection) -> None:
    enqueue(connection, r"""'kind', '{"a": "\u0000"}'""")
    rows = connection.execute("SELECT payload::text FROM mailrace.jobs").fetchall()
    assert rows == [(r'{"a": "\u0000"}',)]


@pytest.mark.parametrize(
    ("arguments", "code", "words", "hint"),
    [
        ("''", "MR400", "a job has no kind", "name the handler"),
        ("NULL", "MR400", "a job has no kind", "name the handler"),
        ("'k', priority => 10", "MR400", "priority is 10", "from -9 to 9"),
        ("'k', attempts => 99999", "MR400", "attempts is 99999", "from 1 to 32767"),
        ("'k', lane => 'slow'", "MR400", "lane is 'slow'", "transactional or campaign"),
        ("'k', batch_id => 7", "MR409", "the batch 7 is sealed or not known", "another name"),
        ("'k', queue => 'closed'", "MR409", "the queue 'closed' is draining", "another queue"),
        (
            "'k', queue => 'closed', unique_key => 'u'", "MR409", "the queue 'closed' is draining",
            "another queue",
        ),
        ("'k', '{'", "22P02", "invalid input syntax for type json", ""),
    ],
)  # fmt: skip
def test_postgres_says_what_is_wrong_with_a_call(
    connection: psycopg.Connection, arguments: str, code: str, words: str, hint: str
) -> None:
    connection.execute(
        "INSERT INTO mailrace.queues VALUES ('closed', false, true, NULL, NULL, '{}', 60)"
    )
    with pytest.raises(psycopg.Error) as caught:
        enqueue(connection, arguments)
    assert caught.value.sqlstate == code
    assert words in (caught.value.diag.message_primary or "")
    assert hint in (caught.value.diag.message_hint or "")
    assert connection.execute("SELECT FROM mailrace.tallies").fetchall() == []


def test_what_is_no_array_of_jobs_is_refused_by_postgres(connection: psycopg.Connection) -> None:
    for jobs in ('{"kind": "k"}', "7", None):
        with pytest.raises(psycopg.Error, match="not a JSON array"):
            connection.execute("SELECT * FROM mailrace.enqueue_many(%s::json)", (jobs,))


def test_postgres_tells_of_a_queue_once_a_call_or_not_at_all(
    connection: psycopg.Connection,
) -> None:
    connection.execute("LISTEN mailrace")
    many = "SELECT * FROM mailrace.enqueue_many(%s::json, notify => %s)"
    plain, keyed = (
        msgspec.json.encode([{"kind": "k", "queue": queue, **more} for queue in "aab"]).decode()
        for more in ({}, {"unique": "one"})
    )
    connection.execute(many, (plain, False))
    connection.execute(many, (plain, True))
    connection.execute(many, (keyed, True))
    connection.execute(many, (keyed, True))  # nothing is new
    enqueue(connection, "'k', notify => false")
    told = [notify.payload for notify in connection.notifies(timeout=0.0)]
    assert sorted(told[:2]) == ["a", "b"]
    assert told[2:] == ["a"]


# Keys


def keyed(names: list[str], way: str) -> str:
    return msgspec.json.encode([{"kind": "kind", way: name} for name in names]).decode()


@pytest.mark.parametrize("way", ["unique", "idempotency"])
def test_of_many_postgres_calls_at_the_same_time_one_adds_each_key(
    connection: psycopg.Connection, postgres_dsn: str, way: str
) -> None:
    threads, rounds, width = 4, 15, 20
    barrier = Barrier(threads)

    def add(number: int) -> list[list[tuple[int, bool]]]:
        answers = []
        with psycopg.connect(postgres_dsn, autocommit=True) as own:
            for turn in range(rounds):
                names = [f"{turn}-{place}" for place in range(width)]
                if number % 2:
                    names.reverse()  # in whose order nobody must have to wait for the other
                barrier.wait(30)
                found = own.execute(
                    "SELECT * FROM mailrace.enqueue_many(%s::json)", (keyed(names, way),)
                ).fetchall()
                answers.append(found[::-1] if number % 2 else found)
        return answers

    with ThreadPoolExecutor(threads) as pool:
        by_thread = list(pool.map(add, range(threads)))
    for turn in range(rounds):
        for place in range(width):
            found = [answers[turn][place] for answers in by_thread]
            assert len({job_id for job_id, _ in found}) == 1
            assert sum(created for _, created in found) == 1
    assert connection.execute("SELECT count(*) FROM mailrace.jobs").fetchone() == (rounds * width,)
    summed = connection.execute("SELECT sum(jobs)::int FROM mailrace.tallies").fetchone()
    assert summed == (rounds * width,)


def test_a_postgres_call_that_waits_for_another_s_key_answers_with_its_job(
    connection: psycopg.Connection, postgres_dsn: str
) -> None:
    with psycopg.connect(postgres_dsn) as other, ThreadPoolExecutor(1) as pool:
        ((first, _),) = enqueue(other, "'kind', unique_key => 'u'")
        waiting = pool.submit(enqueue, connection, "'kind', unique_key => 'u'")
        until_locked(postgres_dsn)
        other.commit()
        assert waiting.result(30) == [(first, False)]


def test_a_postgres_call_that_waits_for_a_key_gets_it_when_the_other_rolls_back(
    connection: psycopg.Connection, postgres_dsn: str
) -> None:
    for arguments in ("'kind', unique_key => 'u'", "'kind', idempotency_key => 'i'"):
        with psycopg.connect(postgres_dsn) as other, ThreadPoolExecutor(1) as pool:
            enqueue(other, arguments)
            waiting = pool.submit(enqueue, connection, arguments)
            until_locked(postgres_dsn)
            other.rollback()
            ((_, created),) = waiting.result(30)
            assert created


def test_sealing_a_postgres_batch_waits_for_those_who_add_to_it(
    connection: psycopg.Connection, postgres_dsn: str
) -> None:
    connection.execute(
        "INSERT INTO mailrace.batches (name, kind, spec, created_at)"
        " VALUES ('batch', 'kind', '{}', now())"
    )
    ((batch_id,),) = connection.execute("SELECT id FROM mailrace.batches").fetchall()
    seal = "UPDATE mailrace.batches SET sealed_at = now()"
    with psycopg.connect(postgres_dsn) as other, ThreadPoolExecutor(1) as pool:
        enqueue(other, f"'kind', batch_id => {batch_id}")
        sealing = pool.submit(connection.execute, seal)
        until_locked(postgres_dsn)
        assert not sealing.done()
        other.commit()
        sealing.result(30)
    with pytest.raises(psycopg.Error, match="is sealed"):
        enqueue(connection, f"'kind', batch_id => {batch_id}")


def until_locked(dsn: str) -> None:
    """Waits until somebody waits for a lock."""
    until_s = SystemClock.monotonic_s() + 30
    with psycopg.connect(dsn, autocommit=True) as watcher:
        while not watcher.execute(
            "SELECT pid FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND datname = current_database()"
        ).fetchall():
            assert SystemClock.monotonic_s() < until_s, "nobody had to wait"
