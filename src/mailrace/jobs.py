"""The durable queue for a program: one import for those who enqueue and those who work.

```python
from mailrace.jobs import Handlers, open_queue, open_worker
```
"""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, Unpack

from mailrace.clock import SystemClock
from mailrace.errors import MisuseError
from mailrace.events import Events
from mailrace.queue.answers import Cancel, Fail, Retry, SlowDown, Snooze
from mailrace.queue.batches import Batch, BatchReport
from mailrace.queue.cluster import Cluster
from mailrace.queue.cron import CatchUp
from mailrace.queue.drafting import Drafting, JobChoices
from mailrace.queue.exporting import QueueExporter
from mailrace.queue.jobrows import EndedCount, JobDetail, JobFilter, JobRow
from mailrace.queue.jobs import Enqueued, Lane, NewJob
from mailrace.queue.keycounts import KeyCount, KeyUse
from mailrace.queue.kinds import Handlers, JobInfo
from mailrace.queue.payloadkeys import PayloadKeys
from mailrace.queue.queue import Queue
from mailrace.queue.resealing import Resealed
from mailrace.queue.sealing import Sealer
from mailrace.queue.states import JobState
from mailrace.queue.worker import Worker, WorkerSettings
from mailrace.wiring import Chance, enqueue_by, open_store

__all__ = [
    "Batch",
    "BatchReport",
    "Cancel",
    "CatchUp",
    "Cluster",
    "EndedCount",
    "Enqueued",
    "Fail",
    "Handlers",
    "JobChoices",
    "JobDetail",
    "JobFilter",
    "JobInfo",
    "JobRow",
    "JobState",
    "KeyCount",
    "KeyUse",
    "Lane",
    "NewJob",
    "PayloadKeys",
    "Queue",
    "QueueExporter",
    "Resealed",
    "Retry",
    "Sealer",
    "SlowDown",
    "Snooze",
    "Worker",
    "WorkerSettings",
    "enqueue_in",
    "enqueue_in_async",
    "open_cluster",
    "open_queue",
    "open_worker",
]

_HANDLERS: Final = "give the Handlers that the functions were registered with"


@asynccontextmanager
async def open_queue(
    store: str,
    *,
    handlers: Handlers | None = None,
    keys: str | None = None,
    sealed_only: bool = False,
    redis: str | None = None,
) -> AsyncIterator[Queue]:
    """Opens a store for enqueueing and for looking after its jobs.

    Args:
        store: `sqlite:///PATH` or `postgresql://…`; made if it is empty.
        handlers: The kinds whose payloads have types: a payload is then checked at enqueue.
        keys: Seals payloads: `ID:BASE64` of 32 bytes, several with commas, the first one seals.
        sealed_only: A payload that is not sealed is refused, whoever put it there.
        redis: A Redis beside the store, `redis://…`, as a cache for limits and wake-ups.

    Raises:
        MisuseError: The store cannot be used; says what to do.
        UnavailableError: The server is out of reach.
    """
    _check(store, handlers)
    sealer = Sealer.given(keys, sealed_only=sealed_only)
    stored = await open_store(store, redis=redis)
    drafting = Drafting(nonces=os.urandom, handlers=handlers, sealer=sealer)
    async with Queue(stored.store, drafting) as queue:
        yield queue


@asynccontextmanager
async def open_cluster(store: str, *, redis: str | None = None) -> AsyncIterator[Cluster]:
    """Opens a store for looking at those who work on it, and for telling them what to do.

    Raises:
        As `open_queue`.
    """
    _check(store)
    stored = await open_store(store, redis=redis)
    try:
        yield Cluster(stored.store)
    finally:
        await stored.store.close()


@asynccontextmanager
async def open_worker(
    store: str,
    handlers: Handlers,
    *,
    settings: WorkerSettings | None = None,
    keys: str | None = None,
    sealed_only: bool = False,
    journals: str | None = None,
    redis: str | None = None,
    events: Events | None = None,
    supervisor: str = "",
) -> AsyncIterator[Worker]:
    """Opens a store and a worker on it; `await worker.run()` works until it is told to stop.

    Args:
        sealed_only: A payload that is not sealed is not opened: its job fails.
        journals: The folder of this machine's journals, if not the default.
        redis: As for `open_queue`.
        events: Where the worker says what happens.

    Raises:
        As `open_queue`.
    """
    _check(store, handlers, settings=settings)
    if handlers is None:
        raise MisuseError("handlers is None", hint=_HANDLERS)
    sealer = Sealer.given(keys, sealed_only=sealed_only)
    clock, chance = SystemClock(), Chance()
    stored = await open_store(store, journals=journals, redis=redis)
    try:
        yield Worker(
            stored.store,
            handlers,
            place=stored.place,
            clock=clock,
            names=chance.name,
            rng=chance.rng,
            events=events or Events(),
            settings=settings,
            sealer=sealer,
            supervisor=supervisor,
        )
    finally:
        await stored.store.close()


def enqueue_in(
    connection: object,
    kind: str | Callable[..., Any],
    payload: object = None,
    *,
    handlers: Handlers | None = None,
    keys: str | None = None,
    **choices: Unpack[JobChoices],
) -> Enqueued:
    """Adds a job in a transaction of your own, on a PostgreSQL that is the store.

    It is there if you commit, and never was if you roll back.

    Args:
        connection: A psycopg connection or cursor, a SQLAlchemy connection or session, or
            Django's `connection`.

    Raises:
        MisuseError: Something given is wrong, or the connection is none of these.
        ConflictError: The queue is draining, or the batch is sealed.
    """
    drafting = Drafting(nonces=os.urandom, handlers=handlers, sealer=Sealer.given(keys))
    (answer,) = enqueue_by().enqueue_in(connection, [drafting.job(kind, payload, choices)])
    found: Enqueued = answer
    return found


async def enqueue_in_async(
    connection: object,
    kind: str | Callable[..., Any],
    payload: object = None,
    *,
    handlers: Handlers | None = None,
    keys: str | None = None,
    **choices: Unpack[JobChoices],
) -> Enqueued:
    """As `enqueue_in`, on an async psycopg connection or an async SQLAlchemy one."""
    drafting = Drafting(nonces=os.urandom, handlers=handlers, sealer=Sealer.given(keys))
    jobs = [drafting.job(kind, payload, choices)]
    (answer,) = await enqueue_by().enqueue_in_async(connection, jobs)
    found: Enqueued = answer
    return found


def _check(store: object, handlers: object = None, *, settings: object = None) -> None:
    if not isinstance(store, str):
        raise MisuseError(
            f"store is {store!r}", hint="give its URL: sqlite:///PATH or postgresql://…"
        )
    if handlers is not None and not isinstance(handlers, Handlers):
        raise MisuseError(f"handlers is {handlers!r}", hint=_HANDLERS)
    if settings is not None and not isinstance(settings, WorkerSettings):
        raise MisuseError(f"settings is {settings!r}", hint="give WorkerSettings(…)")
