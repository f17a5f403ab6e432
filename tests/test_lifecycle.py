"""Named tasks: a fault is told and raised, a cancel is waited for."""

import asyncio

import pytest

from mailrace.lifecycle import Tasks


async def forever() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise ValueError("broken")


async def test_a_fault_is_told_at_once_and_raised_at_the_end() -> None:
    told = asyncio.Event()
    tasks = Tasks(told.set)
    tasks.start("good", forever())
    tasks.start("bad", fail())
    async with asyncio.timeout(5):
        await told.wait()
        with pytest.raises(ValueError, match="broken"):
            tasks.check()
        await tasks.cancel()
        with pytest.raises(ValueError, match="broken"):
            await tasks.drain()


async def test_draining_waits_for_all_and_a_cancelled_one_has_ended_well() -> None:
    ended: list[int] = []

    async def work(number: int) -> None:
        await asyncio.sleep(0)
        ended.append(number)

    tasks = Tasks(lambda: pytest.fail("nothing went wrong"))
    for number in range(3):
        tasks.start(f"work-{number}", work(number))
    await tasks.drain()
    assert ended == [0, 1, 2]
    tasks.start("cut short", forever())
    await tasks.cancel()
    await tasks.cancel()
    await tasks.drain()
    assert {task.get_name() for task in asyncio.all_tasks()} & {"cut short"} == set()


async def test_there_may_be_none() -> None:
    tasks = Tasks(lambda: None)
    await tasks.drain()
    await tasks.cancel()
