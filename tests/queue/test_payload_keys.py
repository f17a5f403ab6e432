"""What is refused before any payload is touched."""

import pytest

from mailrace.errors import MisuseError
from mailrace.jobs import PayloadKeys, Queue
from mailrace.queue import Store
from tests.queue.keyring import NEW, OLD, boxes, queue_with


async def refused(queue: Queue, text: str, *, plain: bool = False) -> None:
    keys: PayloadKeys = queue.keys
    with pytest.raises(MisuseError, match=text):
        keys.check_reseal(plain=plain)
    with pytest.raises(MisuseError, match=text):
        await keys.reseal(plain=plain)


async def test_without_keys_nothing_can_be_sealed(store: Store) -> None:
    for plain in (False, True):
        await refused(queue_with(store), "no keys", plain=plain)


async def test_where_only_sealed_payloads_are_taken_no_plain_one_is_made_to_look_so(
    store: Store,
) -> None:
    await queue_with(store).enqueue("x", 1)
    await queue_with(store, OLD).enqueue("x", 2)
    before = await boxes(store)
    strict = queue_with(store, NEW, OLD, sealed_only=True)
    await refused(strict, "only sealed payloads are taken.*switch sealed_only off", plain=True)
    assert await boxes(store) == before
    strict.keys.check_reseal()
    done = await strict.keys.reseal()
    assert (done.resealed, done.plain, done.unopened) == (1, 1, 0)
