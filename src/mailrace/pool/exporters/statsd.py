"""StatsD: sends the numbers of pools by UDP, every few seconds."""

import asyncio
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from mailrace.clock import Clock, SystemClock
from mailrace.errors import MisuseError
from mailrace.events import Events
from mailrace.pool.exporters.reading import Reading, ask, by_name
from mailrace.pool.exporters.statsd_lines import Line, Names, datagrams, lines_of, payload
from mailrace.pool.options import Duration, seconds
from mailrace.pool.pool import Pool

_LIMIT_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFailed:
    """The numbers could not be sent; counters are made up for the next time."""

    host: str
    port: int
    error: BaseException


class StatsdExporter:
    """Sends gauges as they are, and of counters what has come since the last time.

        async with StatsdExporter(pool, host="statsd.internal"), pool:
            ...

    Entered before its pools it also sends what happens while they close. What a pool had counted
    before the exporter started is not sent.

    UDP does not say what arrives: a host that is not there costs nothing and delays nothing. Where
    sending fails here, because the name is not known or the network is down, `failures` is counted,
    `ExportFailed` emitted, and what counters have gained goes out when it works again.

    Args:
        pools: Each with a name of its own.
        host: Name or address; looked up anew each time.
        port: UDP port.
        every: Time between two sends.
        prefix: What all names begin with.
        tags: `None` for plain StatsD, where pool and label are parts of the name:
            `mailrace.pool.mails.jobs.failed:2|c`. Otherwise they are tags as DogStatsD has them,
            beside these: `mailrace.pool.jobs:2|c|#env:live,pool:mails,state:failed`.
        events: Where failures are told.
        clock: What it waits by.

    Raises:
        MisuseError: Two pools have one name, or something is no port or cannot be part of a name.
    """

    def __init__(
        self,
        *pools: Pool,
        host: str = "127.0.0.1",
        port: int = 8125,
        every: Duration = 10.0,
        prefix: str = "mailrace.pool",
        tags: Mapping[str, str] | None = None,
        events: Events | None = None,
        clock: Clock | None = None,
    ) -> None:
        if port not in range(1, 65536):
            raise MisuseError(f"port is {port!r}", hint="give a number from 1 to 65535")
        self.failures = 0
        self._pools = by_name(pools)
        self._host = host
        self._port = port
        self._every_s = seconds(every, "every")
        self._names = Names(prefix, tags)
        self._names.check(self._pools)
        self._events = events or Events()
        self._clock = clock or SystemClock()
        self._sent: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> Self:
        """Begins to send, on the running loop. Doing it again does nothing."""
        if self._task is None:
            self._forget(await self._readings())
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="statsd exporter")
        return self

    async def stop(self) -> None:
        """Sends once more and ends. Doing it again does nothing."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
        await self._export()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _run(self) -> None:
        while True:
            await self._clock.sleep_s(self._every_s)
            await self._export()

    async def _export(self) -> None:
        try:
            readings = await self._readings()
            async with asyncio.timeout(_LIMIT_S):
                await self._send(lines_of(readings, self._names, self._sent))
        except Exception as error:  # noqa: BLE001 - the root of the task, which has to live on
            self.failures += 1
            self._events.emit(ExportFailed(host=self._host, port=self._port, error=error))

    def _forget(self, readings: Mapping[str, Reading]) -> None:
        """What was counted until now is not to be sent."""
        for line in lines_of(readings, self._names, self._sent):
            if line.total is not None:
                self._sent[line.key] = line.total

    async def _readings(self) -> Mapping[str, Reading]:
        """Of all pools that answer in time."""
        answers = {name: asyncio.wrap_future(ask(pool)) for name, pool in self._pools.items()}
        _, late = await asyncio.wait(answers.values(), timeout=_LIMIT_S)
        for answer in late:
            answer.cancel()
        readings = {name: answer.result() for name, answer in answers.items() if answer not in late}
        return {name: reading for name, reading in readings.items() if reading is not None}

    async def _send(self, lines: Iterable[Line]) -> None:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as sender:
            sender.settimeout(0)
            for datagram in datagrams(lines):
                sender.sendto(payload(datagram), address)
                # Each on its own: what a later one fails to carry is not counted as sent.
                self._sent |= {line.key: line.total for line in datagram if line.total is not None}
