"""What every store does for processes that hear of each other."""

import asyncio

import msgspec

from mailrace.queue import Store
from mailrace.queue.commands import Action, Answer, Command, NewCommand
from tests.queue.houses import House, now_ms


async def test_orders_reach_those_they_are_for_the_oldest_first(house: House, store: Store) -> None:
    other = await house.opened()
    targets = ("all", "process:1", "node:ä", "all", "process:2")
    ids = [
        await store.command(NewCommand(action=Action.SCALE, target=target, argument=place))
        for place, target in enumerate(targets)
    ]
    assert ids == sorted(set(ids))
    now = now_ms(house)
    found = await other.commands(["process:1", "all"], 0)
    assert found == [
        Command(
            id=ids[place], action=Action.SCALE, target=targets[place], argument=place,
            created_ms=now, expires_ms=now + 300_000,
        )
        for place in (0, 1, 3)
    ]  # fmt: skip
    assert [command.id for command in await other.commands(["all"], ids[0])] == [ids[3]]
    assert await other.commands(["process:3"], 0) == []
    assert await other.commands([], 0) == []


async def test_an_order_without_an_argument_has_none(store: Store) -> None:
    await store.command(NewCommand(action=Action.RESET_BREAKERS))
    (command,) = await store.commands(["all"], 0)
    assert (command.action, command.target, command.argument) == (
        Action.RESET_BREAKERS, "all", None,
    )  # fmt: skip


async def test_an_order_that_has_expired_is_not_carried_out(house: House, store: Store) -> None:
    short = await store.command(NewCommand(action=Action.STOP, expires_in_s=5.0))
    long = await store.command(NewCommand(action=Action.STOP, expires_in_s=50.0))
    house.clock.move_to(4.999)
    assert [command.id for command in await store.commands(["all"], 0)] == [short, long]
    house.clock.move_to(5.001)
    assert [command.id for command in await store.commands(["all"], 0)] == [long]


async def test_answers_are_kept_by_order(house: House, store: Store) -> None:
    one = await store.command(NewCommand(action=Action.PAUSE))
    two = await store.command(NewCommand(action=Action.RESUME))
    other = await house.opened()
    given = [
        Answer(command_id=one, by="process:1", done=True, text="paused"),
        Answer(command_id=one, by="process:2", done=False, text="it's 'draining' ä"),
        Answer(command_id=two, by="process:1", done=True, text=""),
    ]
    for answer in given:
        await other.answer(answer)
    found = [msgspec.structs.replace(answer, at_ms=0) for answer in await store.answers(one)]
    assert sorted(found, key=lambda answer: answer.by) == given[:2]
    assert len(await store.answers(two)) == 1
    assert await store.answers(4711) == []


async def test_an_answer_to_an_order_that_nobody_knows_is_not_kept(store: Store) -> None:
    await store.answer(Answer(command_id=4711, by="process:1", done=True, text="paused"))
    assert await store.answers(4711) == []


async def test_an_order_is_never_given_the_number_of_one_that_was_forgotten(
    house: House, store: Store
) -> None:
    first = await store.command(NewCommand(action=Action.PAUSE, expires_in_s=1.0))
    house.clock.move_to(400 * 86_400.0)
    await store.tidy()
    assert await store.command(NewCommand(action=Action.PAUSE)) > first


# Turns


async def test_a_turn_is_taken_once_in_its_time(house: House, store: Store) -> None:
    other = await house.opened()
    assert await store.take_turn("tidy", 10.0)
    assert not await other.take_turn("tidy", 10.0)
    assert await other.take_turn("other", 10.0)
    house.clock.move_to(9.9)
    assert not await store.take_turn("tidy", 10.0)
    house.clock.move_to(10.1)
    assert await other.take_turn("tidy", 10.0)
    assert not await store.take_turn("tidy", 10.0)


async def test_of_many_who_ask_at_once_one_has_the_turn(house: House, store: Store) -> None:
    other = await house.opened()
    for round_ in range(6):
        house.clock.move_to(round_ * 100.0)
        answers = await asyncio.gather(
            *(mine.take_turn("tidy", 10.0) for mine in (store, other) * 3)
        )
        assert answers.count(True) == 1


# Notes


async def test_notes_are_kept_for_everybody_by_the_beginning_of_their_names(
    house: House, store: Store
) -> None:
    other = await house.opened()
    written = {
        "breaker:a": {"open": True}, "breaker:ä_%": ["x", None, 1.5], "breaker": "no colon",
        "a_b": 1, "axb": 2, "c%": 3, "cd": 4,
    }  # fmt: skip
    for name, value in written.items():
        await store.note(name, msgspec.json.encode(value))

    async def read(prefix: str) -> dict[str, object]:
        notes = await other.notes(prefix)
        return {name: msgspec.json.decode(value) for name, value in notes.items()}

    assert await read("") == written
    assert await read("breaker:") == {
        "breaker:a": {"open": True}, "breaker:ä_%": ["x", None, 1.5],
    }  # fmt: skip
    assert await read("a_") == {"a_b": 1}
    assert await read("c%") == {"c%": 3}
    assert await read("Breaker") == {}


async def test_a_note_is_replaced_and_removed(house: House, store: Store) -> None:
    other = await house.opened()
    await store.note("n", b"1")
    await other.note("n", b"[2]")
    assert await store.notes("n") == {"n": b"[2]"}
    await store.note("n", None)
    await other.note("n", None)
    assert await other.notes("") == {}
