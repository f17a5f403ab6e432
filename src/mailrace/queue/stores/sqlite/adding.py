"""Adding jobs, in the transaction of whoever asks: an enqueue, a schedule, a batch that is done."""

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec

from mailrace.errors import MisuseError
from mailrace.queue.jobs import Enqueued, Lane, NewJob, key_digest
from mailrace.queue.refusals import batch_sealed, no_batch, queue_draining
from mailrace.queue.states import JobState
from mailrace.queue.stores.sqlite.database import one, run, statement
from mailrace.queue.stores.sqlite.ledger import shift

_ALIKE: Final = (
    "kind", "queue", "tenant", "priority", "run_at_ms", "state", "expires_ms", "batch_id",
    "attempts", "lane", "tags",
)  # fmt: skip
_Alike = tuple[
    str, str, str, int, int, JobState, int | None, int | None, int | None, Lane | None, str | None
]
_Digests = tuple[str | None, str | None]
_Varying = tuple[str | None, str | None, msgspec.Raw]
# Below so many jobs a statement it costs less to read all their parts out of JSON.
_RUN_MIN = 8


def check_open(connection: sqlite3.Connection, jobs: Sequence[NewJob]) -> None:
    """Raises a `ConflictError` if a queue or a batch takes nothing in."""
    queues = msgspec.json.encode({job.queue for job in jobs}).decode()
    for (name,) in connection.execute(statement("queues_draining"), {"queues": queues}).fetchall():
        raise queue_draining(name)
    batches = {job.batch_id for job in jobs} - {None}
    if not batches:
        return
    values = {"batches": msgspec.json.encode(batches).decode()}
    for batch_id, known in connection.execute(statement("batches_refusing"), values).fetchall():
        raise batch_sealed(batch_id) if known else no_batch(batch_id)


def add_jobs(connection: sqlite3.Connection, jobs: Sequence[NewJob], now_ms: int) -> list[Enqueued]:
    """Adds jobs and counts them; answers in their order."""
    first_id = 1 + int(one(connection, "sequence_select", name="job"))
    if all(job.plain for job in jobs):
        _insert(connection, first_id, jobs, now_ms)
        return [Enqueued(job_id, new=True) for job_id in range(first_id, first_id + len(jobs))]
    digests = [_digests(job) for job in jobs]
    answers = _Doubles(connection, digests).answers(first_id)
    new = [place for place, answer in enumerate(answers) if answer.new]
    if new:
        _insert(connection, first_id, [jobs[place] for place in new], now_ms)
        keys = [
            (digest, answers[place].id, jobs[place].batch_id)
            for place in new
            if (digest := digests[place][0]) is not None
        ]
        run(connection, "keys_insert", keys=_text(keys), now_ms=now_ms)
    return answers


def _digests(job: NewJob) -> _Digests:
    """Of the idempotency key and the unique key."""
    return (
        None if job.idempotency is None else key_digest(job.kind, job.idempotency),
        None if job.unique is None else key_digest(job.kind, job.unique),
    )


class _Doubles:
    """Finds out which of some jobs are there already, or twice among themselves."""

    def __init__(self, connection: sqlite3.Connection, digests: Sequence[_Digests]) -> None:
        self._digests = digests
        self._known = _lookup(connection, "keys_select", [known for known, _ in digests])
        self._live = _lookup(connection, "unique_select", [live for _, live in digests])

    def answers(self, first_id: int) -> list[Enqueued]:
        answers = []
        next_id = first_id
        for known, live in self._digests:
            # Neither has an entry for None.
            found = self._known.get(known)
            if found is None:
                found = self._live.get(live)
            if found is not None:
                answers.append(Enqueued(found, new=False))
                continue
            answers.append(Enqueued(next_id, new=True))
            if known is not None:
                self._known[known] = next_id
            if live is not None:
                self._live[live] = next_id
            next_id += 1
        return answers


def _lookup(
    connection: sqlite3.Connection, name: str, digests: Sequence[str | None]
) -> dict[str | None, int]:
    given = [digest for digest in digests if digest is not None]
    if not given:
        return {}
    return dict(connection.execute(statement(name), {"digests": _text(given)}).fetchall())


def _insert(
    connection: sqlite3.Connection, first_id: int, jobs: Sequence[NewJob], now_ms: int
) -> None:
    try:
        added = _insert_rows(connection, first_id, jobs, now_ms)
    except sqlite3.OperationalError as error:
        if "malformed JSON" not in str(error):
            raise
        added = -1
    except sqlite3.IntegrityError as error:
        raise MisuseError(
            f"a job has a value out of range: {error}", hint="correct that job; none was added"
        ) from error
    if added != len(jobs):
        raise MisuseError("a payload is not one JSON value", hint="encode it with msgspec.json")
    run(connection, "sequence_update", name="job", value=first_id + added - 1)
    queues = set()
    for queue, batch_id, state, number in connection.execute(
        statement("job_sums"), {"first_id": first_id}
    ).fetchall():
        shift(connection, queue, batch_id, state, number)
        queues.add(queue)
    for queue in queues:
        run(connection, "arrivals_add", queue=queue)


def _insert_rows(
    connection: sqlite3.Connection, first_id: int, jobs: Sequence[NewJob], now_ms: int
) -> int:
    """Adds runs of jobs that are alike each with one statement; others with one for all."""
    runs: list[tuple[_Alike, list[_Varying]]] = []
    for job in jobs:
        alike, varying = _row(job, now_ms)
        if runs and runs[-1][0] == alike:
            runs[-1][1].append(varying)
        else:
            runs.append((alike, [varying]))
    if len(runs) * _RUN_MIN > len(jobs):
        rows = [(*alike, *varying) for alike, some in runs for varying in some]
        return run(connection, "job_insert", first_id=first_id, now_ms=now_ms, jobs=_text(rows))
    added = 0
    for alike, some in runs:
        added += run(
            connection, "job_insert_alike",
            first_id=first_id + added, now_ms=now_ms, jobs=_text(some),
            **dict(zip(_ALIKE, alike, strict=True)),
        )  # fmt: skip
    return added


def _text(rows: object) -> str:
    return msgspec.json.encode(rows).decode()


def _row(job: NewJob, now_ms: int) -> tuple[_Alike, _Varying]:
    """What most jobs of a call share, and what is their own, in the order of the statements."""
    run_at_ms = now_ms
    if job.run_at_ms is not None:
        run_at_ms = job.run_at_ms
    elif job.delay_ms is not None:
        run_at_ms += job.delay_ms
    expires_ms = job.expires_at_ms
    if expires_ms is None and job.expires_in_ms is not None:
        expires_ms = now_ms + job.expires_in_ms
    alike = (
        job.kind,
        job.queue,
        job.tenant,
        job.priority,
        run_at_ms,
        JobState.SCHEDULED if run_at_ms > now_ms else JobState.AVAILABLE,
        expires_ms,
        job.batch_id,
        job.attempts,
        job.lane,
        _text(job.tags) if job.tags else None,
    )
    unique = None if job.unique is None else key_digest(job.kind, job.unique)
    return alike, (job.key, unique, job.payload)
