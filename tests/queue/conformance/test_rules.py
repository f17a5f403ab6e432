"""What every store keeps of the rules of queues."""

import asyncio
import os

import pytest
from msgspec import structs

from mailrace.errors import ConflictError
from mailrace.queue import JobState, Store
from mailrace.queue.drafting import Drafting
from mailrace.queue.queue import Queue
from mailrace.queue.queuerules import QueueRules
from tests.queue.houses import House, add, claim_of, enter, new, queue_counts

RULES = QueueRules(
    name="q'ä%", paused=True, draining=True, concurrency=3, concurrency_per_key=2,
    limits=("relay", "{tenant}:a,b"), ageing_s=1.5,
)  # fmt: skip


async def test_rules_are_kept_for_everybody(house: House, store: Store) -> None:
    assert await store.queue_rules() == []
    await store.set_queue(RULES)
    assert await (await house.opened()).queue_rules() == [RULES]


async def test_rules_are_changed_as_a_whole(house: House, store: Store) -> None:
    other = await house.opened()
    plain = QueueRules(name="plain", ageing_s=9.0)
    await store.set_queue(RULES)
    await store.set_queue(plain)
    changed = QueueRules(name=RULES.name, concurrency=1)
    await other.set_queue(changed)
    for mine in (store, other):
        assert sorted(await mine.queue_rules(), key=lambda rules: rules.name) == [plain, changed]


async def test_a_queue_is_drained_and_opened_again_by_another_store(
    house: House, store: Store
) -> None:
    other = await house.opened()
    await add(store, "a", queue="q")
    await other.set_queue(QueueRules(name="q", draining=True))
    with pytest.raises(ConflictError):
        await store.enqueue(new("b", queue="q"))
    await other.set_queue(QueueRules(name="q"))
    await add(store, "c", queue="q")
    assert await queue_counts(store, "q") == {JobState.AVAILABLE: 2}


async def test_a_pause_stops_claims_and_nothing_else(house: House, store: Store) -> None:
    process_id = await enter(store)
    await add(store, "a", "b", queue="q")
    running = await claim_of(store, process_id, 1, queue="q")
    await (await house.opened()).set_queue(QueueRules(name="q", paused=True))
    await add(store, "c", queue="q")
    assert await claim_of(store, process_id, queue="q") == []
    assert [job.id for job in running]
    assert await queue_counts(store, "q") == {JobState.RUNNING: 1, JobState.AVAILABLE: 2}
    await store.set_queue(QueueRules(name="q"))
    assert len(await claim_of(store, process_id, queue="q")) == 2


async def test_a_queue_without_rules_has_the_defaults(store: Store) -> None:
    await store.set_queue(QueueRules(name="other", paused=True, draining=True))
    await add(store, "a", queue="q")
    assert len(await claim_of(store, await enter(store), queue="q")) == 1


async def test_only_the_fields_that_are_named_are_changed(house: House, store: Store) -> None:
    await store.set_queue(RULES, only=["paused"])
    assert await store.queue_rules() == [RULES]  # there were none: all of them are new
    other = QueueRules(name=RULES.name, concurrency_per_key=7, limits=("x",), ageing_s=8.0)
    expected = RULES
    for field in QueueRules.__struct_fields__[1:]:
        await (await house.opened()).set_queue(other, only=[field])
        expected = structs.replace(expected, **{field: getattr(other, field)})
        assert await store.queue_rules() == [expected]
    await store.set_queue(RULES, only=[])
    assert await store.queue_rules() == [other]


async def test_a_bound_holds_on_after_another_field_is_changed(store: Store) -> None:
    process_id = await enter(store)
    await add(store, *"abcd", queue="q")
    await store.set_queue(QueueRules(name="q", concurrency=2))
    await claim_of(store, process_id, 1, queue="q")
    await store.set_queue(QueueRules(name="q", ageing_s=5.0), only=["ageing_s"])
    assert len(await claim_of(store, process_id, queue="q")) == 1
    assert await claim_of(store, process_id, queue="q") == []


async def test_two_who_configure_a_queue_at_the_same_time_keep_each_other_s_changes(
    house: House,
) -> None:
    ann, bob = [Queue(await house.opened(), Drafting(nonces=os.urandom)) for _ in range(2)]
    for number in range(1, 11):
        await ann.resume("q")
        await asyncio.gather(ann.pause("q"), bob.configure("q", concurrency=number))
        await asyncio.gather(bob.drain("q"), ann.configure("q", limits=[f"limit {number}"]))
        rules = await bob.rules("q")
        assert (rules.paused, rules.draining) == (True, True)
        assert (rules.concurrency, rules.limits) == (number, (f"limit {number}",))
