"""Orders come once, and again where somebody failed before he had seen them."""

import pytest

from mailrace.queue.commands import Action, NewCommand
from mailrace.queue.inbox import Inbox
from mailrace.queue.store import Store
from tests.queue.houses import House

PAUSE = NewCommand(action=Action.PAUSE)


@pytest.fixture
def inbox(store: Store) -> Inbox:
    return Inbox(store)


async def ids(inbox: Inbox) -> list[int]:
    return [command.id for command in await inbox.new(["all"])]


async def test_what_was_ordered_before_the_first_look_is_not_meant(
    house: House, store: Store, inbox: Inbox
) -> None:
    await store.command(PAUSE)
    house.clock.move_to(0.001)
    assert await ids(inbox) == []
    assert await ids(inbox) == [] == await inbox.new([])
    later = await store.command(PAUSE)
    assert await ids(inbox) == [later]


async def test_a_look_without_targets_is_the_first_one_all_the_same(
    house: House, store: Store, inbox: Inbox
) -> None:
    assert await inbox.new([]) == []
    house.clock.move_to(0.001)
    meant = await store.command(PAUSE)
    assert await ids(inbox) == [meant]


async def test_orders_come_until_they_are_marked(store: Store, inbox: Inbox) -> None:
    assert await ids(inbox) == []
    given = [await store.command(PAUSE) for _ in range(3)]
    first, second, _ = await inbox.new(["all"])
    inbox.mark(first)
    assert await ids(inbox) == given[1:]
    inbox.mark(second)
    assert await ids(inbox) == given[2:]
