"""Slices of time: many workers that wait for nothing hold the loop no longer than one."""

import asyncio

from mailrace.queue.slices import Slices
from tests.support.clock import VirtualClock

WORKERS = 20
JOB_S = 0.0001
JOBS = 200


async def test_workers_share_a_slice_and_the_loop_goes_round_between_two() -> None:
    clock = VirtualClock()
    slices = Slices(clock)
    done = 0

    async def work() -> None:
        nonlocal done
        while done < JOBS:
            clock.move_to(clock.monotonic_s() + JOB_S)
            done += 1
            if clock.monotonic_s() >= slices.until_s:
                await slices.next()

    tasks = [asyncio.create_task(work()) for _ in range(WORKERS)]
    rounds: list[int] = []
    while done < JOBS:
        before = done
        await asyncio.sleep(0)
        rounds.append(done - before)
    await asyncio.gather(*tasks)
    # Half a millisecond, however many there are; at the very first each of them begins one job.
    assert max(rounds[1:]) <= 6
    assert all(rounds[2:])


async def test_a_new_slice_begins_only_where_the_last_one_is_over() -> None:
    clock = VirtualClock()
    slices = Slices(clock)
    end_s = slices.until_s
    await slices.next()
    assert slices.until_s == end_s
    clock.move_to(clock.monotonic_s() + 1.0)
    await slices.next()
    assert slices.until_s > clock.monotonic_s()


async def test_those_who_wait_go_on_in_their_order_and_one_that_is_cancelled_holds_up_nobody() -> (
    None
):
    clock = VirtualClock()
    slices = Slices(clock)
    clock.move_to(clock.monotonic_s() + 1.0)
    went_on: list[int] = []

    async def wait(number: int) -> None:
        await slices.next()
        went_on.append(number)

    tasks = [asyncio.create_task(wait(number)) for number in range(4)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert went_on == [0, 2, 3]
