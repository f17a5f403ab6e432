"""The clock that the tests of the pool and the queue stand on."""

import asyncio
import threading

from tests.support.clock import VirtualClock, settle


async def test_it_stands_still_until_it_is_moved() -> None:
    clock, woken = VirtualClock(), list[float]()

    async def sleeper(seconds: float) -> None:
        await clock.sleep_s(seconds)
        woken.append(clock.monotonic_s())
        await clock.sleep_s(seconds)
        woken.append(clock.monotonic_s())

    tasks = [asyncio.create_task(sleeper(seconds)) for seconds in (3, 1, 2)]
    await settle()
    assert (woken, clock.sleepers) == ([], 3)
    await clock.advance(2.5)
    assert woken == [1, 2, 2]
    tasks[0].cancel()
    await clock.advance(10)
    assert woken == [1, 2, 2, 4]
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (clock.monotonic_s(), clock.sleepers) == (12.5, 0)


async def test_left_to_itself_it_jumps_when_nothing_else_can_happen() -> None:
    clock = VirtualClock(auto=True)
    unix_s = clock.unix_s()
    await asyncio.gather(clock.sleep_s(3600), clock.sleep_s(7200))
    assert (clock.monotonic_s(), clock.unix_s() - unix_s) == (7200, 7200)


async def test_it_waits_for_threads() -> None:
    clock, go_on = VirtualClock(auto=True), threading.Event()
    sleeping = asyncio.create_task(clock.sleep_s(5))
    working = asyncio.create_task(asyncio.to_thread(go_on.wait))
    for _ in range(1000):
        await asyncio.sleep(0)
    assert clock.monotonic_s() == 0
    go_on.set()
    await working
    assert not sleeping.done()
    await sleeping
    assert clock.monotonic_s() == 5
