"""Payloads as they stand in a store: read to be sealed anew, and written back."""

from collections.abc import AsyncIterator, Sequence
from typing import Final, Literal, NamedTuple, Protocol

import msgspec

from mailrace.queue.states import JobState

PAGE_BYTES: Final = 4 * 1024 * 1024
"""A page ends with the payload that fills so many bytes of UTF-8."""


class StoredPayload(msgspec.Struct, frozen=True, gc=False):
    """A job's payload, sealed or not.

    Attributes:
        state: Of the job, at the same moment.
        lease: The number of its last claim: with another one it was claimed since.
        payload: The JSON value as it stands there.
    """

    id: int
    state: JobState
    lease: int
    kind: str
    queue: str
    batch_id: int | None
    payload: msgspec.Raw


class PayloadChange(NamedTuple):
    """Another payload for a job, if its last claim still is the one that is named."""

    id: int
    lease: int
    payload: bytes


class PlannedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is not made yet: a schedule makes it, or a batch when all of it is final.

    Attributes:
        source: Who makes it.
        name: The name of the schedule or of the batch.
        job: A `NewJob` as JSON, as it stands in the store.
    """

    source: Literal["schedule", "batch"]
    name: str
    job: msgspec.Raw


class Payloads(Protocol):
    """The part of the port where payloads are read and replaced, whatever their jobs' states."""

    async def payloads(self, after_id: int, *, limit: int = 500) -> list[StoredPayload]:
        """A page of jobs of all states with their payloads, by number, from behind `after_id`.

        It is a shorter one where they are large (`PAGE_BYTES`), and empty only when there are no
        more.
        """
        ...

    async def replace_payloads(self, changes: Sequence[PayloadChange]) -> list[int]:
        """Gives jobs that do not run other payloads; returns the ids of those that got theirs.

        One that was claimed since, or that somebody is at, keeps what it has.
        """
        ...

    async def planned_jobs(self) -> list[PlannedJob]:
        """What schedules and batches will enqueue, in no order."""
        ...

    async def replace_planned(self, planned: PlannedJob, job: bytes) -> bool:
        """Puts another job in the place of this one; false if it is no longer what is planned."""
        ...


async def pages(
    store: Payloads, *, after_id: int = 0, until_id: int | None = None
) -> AsyncIterator[list[StoredPayload]]:
    """All payloads from behind `after_id`, up to `until_id` and what stands on its page."""
    while page := await store.payloads(after_id):
        yield page
        after_id = page[-1].id
        if until_id is not None and after_id >= until_id:
            return


class PlannedPayload(msgspec.Struct, frozen=True):
    """What has to be known of a job to come: a newer version may have written the rest."""

    kind: str
    payload: msgspec.Raw


_PLANNED = msgspec.json.Decoder(PlannedPayload)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_planned(planned: PlannedJob) -> PlannedPayload | None:
    """The kind and the payload of a job to come; `None` where somebody damaged it."""
    try:
        return _PLANNED.decode(planned.job)
    except (msgspec.MsgspecError, RecursionError):
        return None


def with_payload(planned: PlannedJob, payload: bytes) -> bytes:
    """The job with another payload, all else to the letter as it was."""
    fields = _FIELDS.decode(planned.job)
    return msgspec.json.encode(fields | {"payload": msgspec.Raw(payload)})
