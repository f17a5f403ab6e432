"""Durable jobs as values: what goes into a store and what comes out of it."""

from enum import StrEnum
from hashlib import md5
from typing import Final

import msgspec

from mailrace.queue.states import JobState, Step

DEFAULT_QUEUE: Final = "default"
DEATHS_MAX: Final = 3
"""A job with which so many processes died is not run again."""


class Lane(StrEnum):
    """What becomes of a job whose attempt has no result: its process died, its reply was lost."""

    TRANSACTIONAL = "transactional"
    """It runs again: better twice than never."""

    CAMPAIGN = "campaign"
    """It is held as `uncertain`: better never than twice."""


class NewJob(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A job to enqueue.

    Attributes:
        kind: Which handler it is for.
        payload: One JSON value, as encoded bytes.
        tenant: Whose it is: the tenants of a queue take turns.
        priority: -9 to 9; of one tenant's jobs the larger goes first.
        run_at_ms: Not before this Unix time in milliseconds.
        delay_ms: Or not before so long after the store's present.
        expires_at_ms: Not after this Unix time in milliseconds; `expires_in_ms` counts from the
            store's present.
        unique: No second job of this kind with the same text while the first is not final.
        idempotency: No second job of this kind with the same text, ever (as long as keys are kept).
        key: What it is about: a queue can bound how many jobs with one key run at a time.
        batch_id: The counted set that it belongs to.
        attempts: How often it may be tried; `None`: as its kind says.
        lane: What becomes of an attempt without a result; `None`: as its kind says.
    """

    kind: str
    payload: msgspec.Raw
    queue: str = DEFAULT_QUEUE
    tenant: str = ""
    priority: int = 0
    run_at_ms: int | None = None
    delay_ms: int | None = None
    expires_at_ms: int | None = None
    expires_in_ms: int | None = None
    unique: str | None = None
    idempotency: str | None = None
    key: str | None = None
    batch_id: int | None = None
    tags: tuple[str, ...] = ()
    attempts: int | None = None
    lane: Lane | None = None

    @property
    def plain(self) -> bool:
        """Whether nothing has to be looked up before it goes in."""
        return self.unique is None and self.idempotency is None


_NEW_JOB = msgspec.json.Decoder(NewJob)


def read_job(text: str | bytes) -> tuple[NewJob | None, str]:
    """A job to come as the stores keep it, or why it cannot be read.

    Somebody may have damaged it, or a newer version have written it: that stops no other job.
    """
    try:
        return _NEW_JOB.decode(text), ""
    except (msgspec.MsgspecError, RecursionError) as error:
        return None, str(error)


class Enqueued(msgspec.Struct, frozen=True, gc=False):
    """What an enqueue answers.

    Attributes:
        id: The job: the new one, or the one that was there with the same key.
        new: Whether this call made it.
    """

    id: int
    new: bool


def key_digest(kind: str, key: str) -> str:
    """What a unique or idempotency key is stored as: 32 hexadecimal digits.

    The same in Python and in the store's SQL: MD5 of the kind, a line feed and the key. It keeps
    keys short and is no secret; two different ones meet by chance once in 2^64 keys.
    """
    return md5(f"{kind}\n{key}".encode(), usedforsecurity=False).hexdigest()


class ClaimedJob(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A job in a worker's hands. The order of the fields is what the stores' SQL answers.

    Attributes:
        lease: The number of this claim; no other claim of any job ever has the same.
        attempt: 1 for the first.
        once: An attempt without a result makes it uncertain, as its lane or its kind says.
        expires_ms: Not to be started after this Unix time in milliseconds.
        payload: The JSON value that was enqueued, not decoded.
    """

    id: int
    lease: int
    attempt: int
    once: bool
    kind: str
    queue: str
    tenant: str
    priority: int
    deaths: int
    key: str | None
    batch_id: int | None
    attempts: int | None
    created_ms: int
    expires_ms: int | None
    payload: msgspec.Raw


class Finished(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How a claim ended: what is written to the journal first and to the store then.

    The order of the fields is the format of the journal and of what the stores' SQL reads.

    Attributes:
        id: The job.
        lease: The claim that ended; the store refuses the record if the job is under another.
        step: Any that leads away from running.
        state: The state that the step leads to from running.
        delay_ms: For `retry` and `snooze`: not before so long after the store's present.
        reason: A short text to group by, for example `550 5.1.1`.
        detail: The whole answer.
        at_ms: When it ended, Unix time in milliseconds.
        category: What kind of error it was: provider, network, data, system; empty for none.
        result: What the handler returned, one JSON value.
    """

    id: int
    lease: int
    step: Step
    state: JobState
    delay_ms: int | None = None
    reason: str = ""
    detail: str = ""
    at_ms: int = 0
    category: str = ""
    result: msgspec.Raw | None = None
