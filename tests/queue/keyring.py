"""Keys, sealed jobs, and what is in a store under them."""

import os
from typing import Any

import msgspec

from mailrace.jobs import Queue
from mailrace.queue import Step, Store
from mailrace.queue.drafting import Drafting
from mailrace.queue.sealing import Sealer, SealingKey
from tests.queue.houses import all_payloads, claim_of, ended, enter

OLD = SealingKey(id="2026a", secret=bytes(range(32)))
NEW = SealingKey(id="2026b", secret=bytes(range(100, 132)))
LOST = SealingKey(id="2025z", secret=bytes(range(50, 82)))
FALSE = SealingKey(id="2026a", secret=bytes(range(60, 92)))
BOTH = (NEW, OLD)
STEPS = (Step.COMPLETE, Step.FAIL, Step.LOSE, Step.CANCEL, Step.EXPIRE, Step.RETRY)


def queue_with(store: Store, *keys: SealingKey, sealed_only: bool = False) -> Queue:
    sealer = Sealer(keys, allow_plain=not sealed_only) if keys else None
    return Queue(store, Drafting(nonces=os.urandom, sealer=sealer))


async def boxes(store: Store) -> dict[int, bytes]:
    return {one.id: bytes(one.payload) for one in await all_payloads(store)}


async def meanings(store: Store, *keys: SealingKey) -> dict[int, Any]:
    """What every job's handler would be given."""
    sealer = Sealer(keys)
    return {
        one.id: msgspec.json.decode(sealer.open(bytes(one.payload), about=one.kind.encode()))
        for one in await all_payloads(store)
    }


async def run_one(store: Store, step: Step | None, queue: str = "default") -> None:
    """Claims what waits in a queue and ends it with a step; `None`: it goes on running."""
    jobs = await claim_of(store, await enter(store), 1000, queue=queue)
    assert jobs
    if step is not None:
        await store.finish(ended(jobs, step, at_ms=await store.now_ms()))
