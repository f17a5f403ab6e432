"""Sealing all stored payloads with the newest key."""

from collections.abc import Callable, Collection
from typing import Final

import msgspec

from mailrace.errors import RejectedError, UnavailableError
from mailrace.queue.batches import queue_of
from mailrace.queue.sealing import NONCE_BYTES, Sealer, key_of
from mailrace.queue.states import JobState
from mailrace.queue.storedpayloads import (
    PayloadChange,
    Payloads,
    StoredPayload,
    pages,
    read_planned,
    with_payload,
)

_NAMED_MAX: Final = 10


class Unopened(msgspec.Struct, frozen=True, kw_only=True):
    """A payload that could not be opened.

    Attributes:
        where: `job 17`, `schedule nightly` or `batch spring`.
        problem: Why; nothing of the payload is in it.
    """

    where: str
    problem: str


class Resealed(msgspec.Struct, frozen=True, kw_only=True):
    """What `reseal` did.

    Attributes:
        key: The key that it sealed with.
        resealed: How many payloads are sealed with it now and were not before.
        left: How many could not be changed now: their jobs run, or somebody was at them.
        unopened: How many cannot be opened, and are as they were; `examples` are the first few.
        plain: How many are not sealed and were left so.
        campaign: How many of `plain` are a mail campaign's: `mailrace send` reads them as they are.
    """

    key: str
    resealed: int
    left: int
    unopened: int
    plain: int
    campaign: int
    examples: list[Unopened]


class Resealing:
    """One go over all that is stored, and another over what was not to be had in the first."""

    def __init__(
        self, store: Payloads, sealer: Sealer, nonces: Callable[[int], bytes], *, plain: bool
    ) -> None:
        self._store = store
        self._sealer = sealer
        self._nonces = nonces
        self._plain_too = plain
        self._resealed = 0
        self._left: set[int] = set()
        self._plans_left = 0
        self._unopened = 0
        self._examples: list[Unopened] = []
        self._plain = 0
        self._campaign = 0

    def result(self) -> Resealed:
        return Resealed(
            key=self._sealer.key_ids[0],
            resealed=self._resealed,
            left=len(self._left) + self._plans_left,
            unopened=self._unopened,
            plain=self._plain,
            campaign=self._campaign,
            examples=self._examples,
        )

    async def plans(self) -> None:
        for planned in await self._store.planned_jobs():
            job, where = read_planned(planned), f"{planned.source} {planned.name}"
            if job is None:
                self._note(where, "the job that it is to make cannot be read")
                continue
            box = self._box(bytes(job.payload), job.kind, where)
            if box is None:
                continue
            if await self._store.replace_planned(planned, with_payload(planned, box)):
                self._resealed += 1
            else:
                self._plans_left += 1

    async def jobs(self) -> None:
        async for page in pages(self._store):
            await self._page(page)
        if not self._left:
            return
        again, self._left = self._left, set()
        async for page in pages(self._store, after_id=min(again) - 1, until_id=max(again)):
            await self._page([stored for stored in page if stored.id in again])

    async def _page(self, page: Collection[StoredPayload]) -> None:
        changes = [change for stored in page if (change := self._change(stored)) is not None]
        if changes:
            done = await self._store.replace_payloads(changes)
            self._resealed += len(done)
            self._left |= {change.id for change in changes}.difference(done)

    def _change(self, stored: StoredPayload) -> PayloadChange | None:
        box = self._box(
            bytes(stored.payload), stored.kind, f"job {stored.id}", campaign=_of_campaign(stored)
        )
        if box is None:
            return None
        if stored.state is JobState.RUNNING:
            self._left.add(stored.id)
            return None
        return PayloadChange(stored.id, stored.lease, box)

    def _box(
        self, payload: bytes, kind: str, where: str, *, campaign: bool = False
    ) -> bytes | None:
        """The payload under the first key; None if it is to stay as it is."""
        try:
            if key_of(payload) is None and (campaign or not self._plain_too):
                self._plain += 1
                self._campaign += campaign
                return None
            nonce = self._nonces(NONCE_BYTES)
            return self._sealer.resealed(payload, about=kind.encode(), nonce=nonce)
        except (RejectedError, UnavailableError) as error:
            self._note(where, error.problem)
            return None

    def _note(self, where: str, problem: str) -> None:
        self._unopened += 1
        if len(self._examples) < _NAMED_MAX:
            self._examples.append(Unopened(where=where, problem=problem))


def _of_campaign(stored: StoredPayload) -> bool:
    return stored.batch_id is not None and stored.queue == queue_of(stored.batch_id)
