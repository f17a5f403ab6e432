"""A pool whose only worker is busy until a test lets it go on, so that everything else waits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from mailrace.pool import Job, Pool
from tests.support.clock import VirtualClock, settle


class Plugged:
    """A pool on a virtual clock, and what ran in it."""

    def __init__(self, **changes: Any) -> None:
        self.clock = VirtualClock()
        self.pool = Pool(clock=self.clock, random=Random(1), **{"workers": 1} | changes)
        self.ran: list[Any] = []
        self._releases: list[asyncio.Event] = []

    async def plug(self) -> Job[Any]:
        """Keeps a worker busy until `unplug`."""
        release = asyncio.Event()
        self._releases.append(release)
        job = await self.pool.submit(self._hold, release)
        await settle()
        return job

    async def unplug(self) -> None:
        """Lets all go on that was kept, and everything run that can."""
        for release in self._releases:
            release.set()
        await settle()

    async def note(self, label: Any) -> Any:
        """A handler that writes down its argument and returns it."""
        self.ran.append(label)
        return label

    async def _hold(self, release: asyncio.Event) -> None:
        await release.wait()


@asynccontextmanager
async def plugged(**changes: Any) -> AsyncIterator[Plugged]:
    """A pool of one worker, which is busy; at the end everything that waits is worked off."""
    bench = Plugged(**changes)
    async with bench.pool:
        await bench.plug()
        yield bench
        assert bench.pool.ledger().balanced
        await bench.unplug()
    assert bench.pool.ledger().balanced
    assert bench.pool.ledger().unfinished == 0
