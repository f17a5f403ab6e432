"""Keys of stored payloads, counted."""

from collections.abc import Sequence

from mailrace.jobs import KeyCount, KeyUse
from mailrace.queue import Step, Store
from mailrace.queue.sealing import SealingKey
from mailrace.queue.storedpayloads import PayloadChange
from tests.queue.houses import add
from tests.queue.keyring import BOTH, FALSE, LOST, NEW, OLD, boxes, queue_with, run_one


def found(counts: Sequence[KeyCount]) -> dict[str | None, dict[str, int]]:
    """The numbers that are not zero, by key."""
    names = ("waiting", "running", "ended", "planned", "unopened")
    return {
        one.key: {name: getattr(one, name) for name in names if getattr(one, name)}
        for one in counts
    }


async def test_payloads_are_counted_by_key_and_by_what_becomes_of_their_jobs(store: Store) -> None:
    old, new, plain = queue_with(store, OLD), queue_with(store, *BOTH), queue_with(store)
    await old.enqueue("x", 1)
    await run_one(store, Step.FAIL)
    await old.enqueue("x", 2)
    await run_one(store, None)
    await old.schedule("nightly", "0 0 * * *", old.job("x", 3))
    await new.enqueue_many("x", [4, 5, 6])
    await plain.enqueue("x", 7, delay=5)
    await queue_with(store, LOST).enqueue("x", 8)
    await add(store, "forged", kind="x")
    expected: dict[str | None, dict[str, int]] = {
        "2026b": {"waiting": 3},
        "2026a": {"running": 1, "ended": 1, "planned": 1},
        "2025z": {"waiting": 1, "unopened": 1},
        None: {"waiting": 2},
    }
    counts = await new.keys.counts()
    assert found(counts) == expected
    assert list(found(counts)) == list(expected)
    uses = [KeyUse.SEALS, KeyUse.OPENS, KeyUse.MISSING, KeyUse.PLAIN]
    assert [one.use for one in counts] == uses


async def test_what_is_damaged_is_counted_apart_and_left(store: Store) -> None:
    (job_id,) = await add(store, "x")
    forged = b'{"mailrace_sealed":1,"key":"2026a","no":1}'
    assert await store.replace_payloads([PayloadChange(job_id, 0, forged)]) == [job_id]
    plain = queue_with(store)
    await plain.schedule("nightly", "0 0 * * *", plain.job("x", "later"))
    (planned,) = await store.planned_jobs()
    assert await store.replace_planned(planned, b'{"kind":7}')
    queue = queue_with(store, OLD)
    counts = await queue.keys.counts()
    assert found(counts) == {"2026a": {}, None: {"waiting": 1, "planned": 1, "unopened": 2}}
    assert [one.use for one in counts] == [KeyUse.SEALS, KeyUse.DAMAGED]
    done = await queue.keys.reseal(plain=True)
    assert (done.resealed, done.unopened) == (0, 2)
    assert [one.where for one in done.examples] == ["schedule nightly", f"job {job_id}"]
    assert await boxes(store) == {job_id: forged}


async def test_without_keys_only_what_is_plain_can_be_opened(store: Store) -> None:
    await queue_with(store, OLD).enqueue("x", 1)
    await queue_with(store).enqueue("x", 2)
    counts = await queue_with(store).keys.counts()
    assert found(counts) == {"2026a": {"waiting": 1, "unopened": 1}, None: {"waiting": 1}}
    strict = found(await queue_with(store, OLD, sealed_only=True).keys.counts())
    assert strict == {"2026a": {"waiting": 1}, None: {"waiting": 1, "unopened": 1}}


async def test_a_key_of_the_same_name_with_another_secret_shows(store: Store) -> None:
    await queue_with(store, OLD).enqueue_many("x", [1, 2])
    counts = await queue_with(store, NEW, FALSE).keys.counts()
    assert found(counts) == {"2026b": {}, "2026a": {"waiting": 2, "unopened": 2}}
    done = await queue_with(store, FALSE).keys.reseal()
    assert (done.resealed, done.unopened) == (0, 2)


async def test_an_empty_store_has_the_keys_that_were_given(store: Store) -> None:
    assert found(await queue_with(store, *BOTH).keys.counts()) == {"2026b": {}, "2026a": {}}
    assert await queue_with(store).keys.counts() == []


async def test_given_keys_are_listed_as_given_then_others_by_name_then_what_has_none(
    store: Store,
) -> None:
    given = [SealingKey(id=name, secret=bytes(range(32))) for name in ("m", "z", "b")]
    for name in ("k", "a"):
        other = SealingKey(id=name, secret=bytes(range(32)))
        await queue_with(store, other).enqueue("x", 1)
    (damaged, _) = await add(store, "damaged", "plain")
    forged = b'{"mailrace_sealed":1,"no":1}'
    assert await store.replace_payloads([PayloadChange(damaged, 0, forged)]) == [damaged]
    counts = await queue_with(store, *given).keys.counts()
    assert [(one.key, one.use) for one in counts] == [
        ("m", "seals"), ("z", "opens"), ("b", "opens"), ("a", "missing"), ("k", "missing"),
        (None, "damaged"), (None, "plain"),
    ]  # fmt: skip
