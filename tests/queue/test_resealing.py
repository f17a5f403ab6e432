"""Payloads sealed anew, without losing one or its meaning."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailrace.errors import UnavailableError
from mailrace.jobs import Queue, Resealed
from mailrace.queue import Step, Store, queue_of
from mailrace.queue.jobrows import JobFilter
from mailrace.queue.sealing import Sealer, SealingKey, key_of
from mailrace.queue.states import REVIVABLE
from mailrace.queue.storedpayloads import PayloadChange
from tests.queue.houses import Estate, House, claim_of, ended, enter, fill
from tests.queue.keyring import (
    BOTH,
    LOST,
    NEW,
    OLD,
    STEPS,
    boxes,
    meanings,
    queue_with,
    run_one,
)

LIMIT_S = 60.0


async def some_of_each(queue: Queue) -> dict[int, Any]:
    """Jobs in every state but running, a page and more of them; their payloads by number."""
    made: dict[int, Any] = {}
    for number, step in enumerate(STEPS):
        payload = {"number": number, "text": "ä ☃"}
        job = await queue.enqueue(f"kind {number}", payload, queue=step.value)
        await run_one(queue.store, step, step.value)
        made[job.id] = payload
    jobs = await queue.enqueue_many("many", range(700))
    return made | {job.id: number for number, job in enumerate(jobs)}


async def test_all_that_was_sealed_with_an_old_key_opens_with_the_new_one_alone(
    store: Store,
) -> None:
    made = await some_of_each(queue_with(store, OLD))
    queue = queue_with(store, *BOTH)
    done = await queue.keys.reseal()
    assert done == Resealed(
        key="2026b", resealed=706, left=0, unopened=0, plain=0, campaign=0, examples=[]
    )
    assert await meanings(store, NEW) == made
    nonces = [box[:80] for box in (await boxes(store)).values()]
    assert len(set(nonces)) == len(nonces)
    before = await boxes(store)
    assert (await queue.keys.reseal()).resealed == 0
    assert await boxes(store) == before
    assert await queue.retry(JobFilter(states=REVIVABLE)) == 4
    for step in (Step.FAIL, Step.LOSE, Step.CANCEL, Step.EXPIRE):
        (job,) = await claim_of(store, await enter(store), queue=step.value)
        opened = Sealer([NEW]).open(bytes(job.payload), about=job.kind.encode())
        assert msgspec.json.decode(opened) == made[job.id]


async def test_what_schedules_and_batches_will_make_is_sealed_anew(store: Store) -> None:
    queue = queue_with(store, OLD)
    await queue.schedule("nightly", "0 0 * * *", queue.job("x", "nightly", tags=["t"]))
    async with queue.batch("spring", then=queue.job("x", "then", tenant="ann")) as batch:
        await queue.enqueue("x", "of the batch", batch_id=batch.id)
    (before,) = [row.job for row in await store.schedules()]
    assert (await queue_with(store, *BOTH).keys.reseal()).resealed == 3
    (after,) = [row.job for row in await store.schedules()]
    assert before is not None
    assert after is not None
    assert msgspec.structs.replace(after, payload=before.payload) == before
    await run_one(store, Step.COMPLETE)
    assert await store.complete_batches() == 1
    assert await store.fire("nightly", await store.now_ms())
    assert sorted((await meanings(store, NEW)).values()) == ["nightly", "of the batch", "then"]


async def test_what_cannot_be_opened_is_named_and_stays_as_it_is(store: Store) -> None:
    lost = queue_with(store, LOST)
    jobs = await lost.enqueue_many("x", range(25))
    await lost.schedule("nightly", "0 0 * * *", lost.job("x", 1))
    (good,) = await queue_with(store, OLD).enqueue_many("x", [1])
    before = await boxes(store)
    done = await queue_with(store, *BOTH).keys.reseal()
    assert (done.resealed, done.left, done.unopened) == (1, 0, 26)
    assert [one.where for one in done.examples] == [
        "schedule nightly", *(f"job {job.id}" for job in jobs[:9])
    ]  # fmt: skip
    assert all("'2025z'" in one.problem for one in done.examples)
    after = await boxes(store)
    assert {job for job in before if before[job] != after[job]} == {good.id}


async def test_a_running_job_is_left_until_it_has_ended(store: Store) -> None:
    queue = queue_with(store, OLD)
    await queue.enqueue("x", 1)
    process_id = await enter(store)
    jobs = await claim_of(store, process_id)
    await queue.enqueue("x", 2)
    new = queue_with(store, *BOTH)
    done = await new.keys.reseal()
    assert (done.resealed, done.left) == (1, 1)
    assert await store.finish(ended(jobs, at_ms=await store.now_ms())) == 0
    done = await new.keys.reseal()
    assert (done.resealed, done.left) == (1, 0)
    assert sorted((await meanings(store, NEW)).values()) == [1, 2]


@pytest.mark.parametrize("step", [None, Step.COMPLETE])
async def test_a_job_that_is_claimed_at_that_very_moment_is_taken_later(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: Step | None
) -> None:
    await queue_with(store, OLD).enqueue_many("x", range(5))
    before = await boxes(store)
    await queue_with(store, LOST).enqueue("x", 5)
    await queue_with(store).enqueue("x", 6)
    await queue_with(store, OLD).enqueue("last", 7, queue="last")
    made = [*sorted(before), max(await boxes(store))]
    asked: list[list[int]] = []
    replace = store.replace_payloads

    async def claimed_first(changes: Sequence[PayloadChange]) -> list[int]:
        if not asked:
            process_id = await enter(store)
            jobs = await claim_of(store, process_id, 1)
            jobs += await claim_of(store, process_id, 1, queue="last")
            if step is not None:
                await store.finish(ended(jobs, step, at_ms=await store.now_ms()))
        done = await replace(changes)
        asked.append([change.id for change in changes])
        return done

    monkeypatch.setattr(store, "replace_payloads", claimed_first)
    done = await queue_with(store, *BOTH).keys.reseal()
    if step is None:
        assert asked == [made]
        assert (done.resealed, done.left) == (4, 2)
    else:
        assert asked == [made, [made[0], made[-1]]]
        assert (done.resealed, done.left) == (6, 0)
    assert (done.unopened, done.plain) == (1, 1)
    assert sorted((await meanings(store, *BOTH, LOST)).values()) == [*range(8)]


async def test_plain_payloads_are_sealed_only_when_that_is_asked_for(store: Store) -> None:
    plain = queue_with(store)
    jobs = await plain.enqueue_many("x", ["a", {"mailrace": 1}, None])
    await plain.schedule("nightly", "0 0 * * *", plain.job("x", "later"))
    queue = queue_with(store, *BOTH)
    done = await queue.keys.reseal()
    assert (done.resealed, done.plain, done.campaign) == (0, 4, 0)
    done = await queue.keys.reseal(plain=True)
    assert (done.resealed, done.plain) == (4, 0)
    assert all(key_of(box) == "2026b" for box in (await boxes(store)).values())
    made = dict(zip([job.id for job in jobs], ["a", {"mailrace": 1}, None], strict=True))
    assert await meanings(store, NEW) == made
    assert (await queue.keys.reseal(plain=True)).resealed == 0


async def test_a_mail_campaign_stays_as_its_runs_read_it(store: Store) -> None:
    batch_id = await fill(store, 3)
    before = await boxes(store)
    done = await queue_with(store, *BOTH).keys.reseal(plain=True)
    assert (done.resealed, done.plain, done.campaign) == (0, 3, 3)
    assert await boxes(store) == before
    jobs = await claim_of(store, await enter(store), queue=queue_of(batch_id))
    assert [bytes(job.payload) for job in jobs] == list(before.values())


async def test_where_it_breaks_off_the_next_call_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await some_of_each(queue_with(store, OLD))
    replace, calls = store.replace_payloads, 0

    async def once(changes: Sequence[PayloadChange]) -> list[int]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise UnavailableError("it went away")
        return await replace(changes)

    monkeypatch.setattr(store, "replace_payloads", once)
    queue = queue_with(store, *BOTH)
    with pytest.raises(UnavailableError):
        await queue.keys.reseal()
    assert await meanings(store, *BOTH) == made
    monkeypatch.setattr(store, "replace_payloads", replace)
    done = await queue.keys.reseal()
    assert 0 < done.resealed < len(made)
    assert await meanings(store, NEW) == made


# Anything, at any time


class Made(NamedTuple):
    """A job of the property: what is in it, who sealed it, and what became of it."""

    payload: Any
    keys: tuple[SealingKey, ...]
    step: Step | None
    claimed: bool


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
jobs_made = st.builds(
    Made,
    payload=values,
    keys=st.sampled_from([(), (OLD,), (NEW,), (LOST,)]),
    step=st.sampled_from([None, *STEPS]),
    claimed=st.booleans(),
)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(made=st.lists(jobs_made, max_size=8), plain=st.booleans())
def test_no_payload_is_lost_or_changed_in_meaning(
    estate: Estate, made: list[Made], plain: bool
) -> None:
    asyncio.run(_reseal_anything(estate, made, plain=plain))


async def _reseal_anything(estate: Estate, made: list[Made], *, plain: bool) -> None:
    house = estate.house()
    try:
        store = await house.opened()
        numbers = [await _make(store, place, one) for place, one in enumerate(made)]
        before = await boxes(store)
        states = house.everything()
        done = await queue_with(store, *BOTH).keys.reseal(plain=plain)
        after = await boxes(store)
        assert house.everything() == states
        opened = await meanings(store, NEW, OLD, LOST)
        for number, one in zip(numbers, made, strict=True):
            assert opened[number] == one.payload
            changes = not _runs(one) and (one.keys == (OLD,) or (plain and not one.keys))
            assert (before[number] != after[number]) is changes
            assert not changes or key_of(after[number]) == "2026b"
        assert done.unopened == sum(one.keys == (LOST,) for one in made)
    finally:
        await house.close()


def _runs(one: Made) -> bool:
    return one.claimed and one.step is None


async def _make(store: Store, place: int, one: Made) -> int:
    job = await queue_with(store, *one.keys).enqueue("x", one.payload, queue=f"q{place}")
    if one.claimed:
        await run_one(store, one.step, f"q{place}")
    return job.id


async def test_workers_go_on_while_two_seal_anew(house: House, store: Store) -> None:
    """Whatever is claimed, ended, revived and sealed at the same time stays what it was."""
    old = queue_with(store, OLD)
    batch = await store.open_batch("spring", "batch", b"{}")
    jobs = await old.enqueue_many("x", range(400))
    more = await old.enqueue_many("x", range(400, 500), batch_id=batch.id)
    made = {job.id: number for number, job in enumerate([*jobs, *more])}
    sealer, rng, working = Sealer(BOTH), random.Random(7), True

    async def work(worker: Store) -> None:
        process_id = await enter(worker)
        for _ in range(60):
            claimed = await claim_of(worker, process_id, 12)
            for job in claimed:
                opened = sealer.open(bytes(job.payload), about=b"x")
                assert msgspec.json.decode(opened) == made[job.id]
            await asyncio.sleep(0)
            now_ms = await worker.now_ms()
            steps = rng.choices([*STEPS, Step.RELEASE], k=len(claimed))
            for job, step in zip(claimed, steps, strict=True):
                await worker.finish(ended([job], step, at_ms=now_ms))
            await worker.revive(JobFilter(states=REVIVABLE), limit=3)

    async def seal(sealing: Store) -> None:
        while working:
            await queue_with(sealing, *BOTH).keys.reseal()

    stores = [await house.opened() for _ in range(4)]
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        for one in stores[2:]:
            group.create_task(seal(one))
        await asyncio.gather(*map(work, stores[:2]))
        working = False
    assert (await queue_with(store, *BOTH).keys.reseal()).left == 0
    assert await meanings(store, NEW) == made
    assert set(house.everything()) == set(made)
    assert sum((await store.report(batch.id)).counts.values()) == 100
