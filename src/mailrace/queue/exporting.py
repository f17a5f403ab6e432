"""Prometheus: the numbers of a whole store, read in the background and served when scraped."""

import asyncio
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from mailrace.clock import Clock, SystemClock
from mailrace.errors import MisuseError
from mailrace.events import Events
from mailrace.pool.exporters.metrics import MetricType
from mailrace.pool.extras import load
from mailrace.pool.options import Duration, seconds
from mailrace.queue.metrics import METRICS, StoreMetric
from mailrace.queue.reading import ExportedStore, Reader, StoreReading

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.metrics_core import Metric as Family

HOST: Final = "127.0.0.1"
PORT: Final = 9464
STORE_PREFIX: Final = "mailrace_store_"
PREFIX: Final = "mailrace_queue_"
_STORE: Final = {
    "up": "1 if the store was read lately.",
    "snapshot_age_seconds": "Since the store was last read; missing if it never was.",
}
_LIMIT_S: Final = 10.0
# A store that was not read for so many turns, and the time that one may take, is out of reach.
_TURNS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreUnread:
    """The store could not be read; told once, until it can be again."""

    error: Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What is known: swapped as a whole, since scrapes come from other threads.

    Attributes:
        at_s: When `reading` was made, on the monotonic clock.
        well: Whether the last attempt at one succeeded.
    """

    reading: StoreReading | None = None
    at_s: float = 0.0
    well: bool = False


class QueueCollector:
    """A collector for `prometheus_client` that shows what `refresh` read last.

    A scrape touches no store, never waits and never raises. Of a store that is out of reach there
    are `mailrace_store_up` 0 and the age of what was read last, and no other metric: old numbers
    would look like new ones.

    Args:
        old_after_s: What was read longer ago counts as out of reach.

    Raises:
        MisuseError: prometheus-client is not installed.
    """

    def __init__(
        self, store: ExportedStore, *, old_after_s: float, clock: Clock | None = None
    ) -> None:
        self._core = load("prometheus_client.core", extra="prometheus")
        self._clock = clock or SystemClock()
        self._reader = Reader(store, self._clock)
        self._old_after_s = old_after_s
        self._look = _Look()

    async def refresh(self) -> Exception | None:
        """Reads the store; returns what kept it from that. For one task at a time."""
        try:
            async with asyncio.timeout(_LIMIT_S):
                reading = await self._reader.read()
        except Exception as error:  # noqa: BLE001 - handed to the caller, who has to go on
            self._look = replace(self._look, well=False)
            return error
        self._look = _Look(reading=reading, at_s=self._clock.monotonic_s(), well=True)
        return None

    def describe(self) -> Iterable["Family"]:
        """All metrics without values: the registry checks their names with it."""
        for name in _STORE:
            yield self._of_store(name, None)
        for metric in METRICS:
            yield self._family(metric, None)

    def collect(self) -> Iterable["Family"]:
        """All metrics, as they were read last."""
        look = self._look
        age_s = self._clock.monotonic_s() - look.at_s
        is_up = look.well and age_s <= self._old_after_s
        yield self._of_store("up", is_up)
        yield self._of_store("snapshot_age_seconds", None if look.reading is None else age_s)
        if is_up:
            for metric in METRICS:
                yield self._family(metric, look.reading)

    def _of_store(self, name: str, value: float | None) -> "Family":
        family: Family = self._core.GaugeMetricFamily(STORE_PREFIX + name, _STORE[name], value)
        return family

    def _family(self, metric: StoreMetric, reading: StoreReading | None) -> "Family":
        is_counter = metric.type is MetricType.COUNTER
        kind = self._core.CounterMetricFamily if is_counter else self._core.GaugeMetricFamily
        family: GaugeMetricFamily = kind(PREFIX + metric.name, metric.meaning, labels=metric.labels)
        if reading is not None:
            for labels, value in metric.values(reading):
                family.add_metric(labels, value)
        return family


class QueueExporter:
    """Serves the numbers of a store over HTTP, for Prometheus.

        async with open_cluster("postgresql://…") as cluster, QueueExporter(cluster.store):
            ...

    One a store is enough: each shows all queues and all processes, on whatever machines. Counters
    begin with the exporter. It reads the store every few seconds on the running loop; scrapes are
    answered from a thread of their own. It is entered also while the store is out of reach, and
    goes on trying.

    Args:
        store: Has to stay open until the exporter has ended.
        host: The address it listens on; only this machine by default, as names of queues and
            hosts are nobody else's business.
        port: The port; 0 for any that is free.
        every: How often the store is read.
        registry: What is served, and where the collector is registered meanwhile: give one in
            which a pool's collector is, and both are served. By default one of its own.
        events: Where it is told that the store cannot be read.
        clock: What it waits by.

    Raises:
        MisuseError: The port is none, or prometheus-client is not installed.
    """

    def __init__(
        self,
        store: ExportedStore,
        *,
        host: str = HOST,
        port: int = PORT,
        every: Duration = 5.0,
        registry: "CollectorRegistry | None" = None,
        events: Events | None = None,
        clock: Clock | None = None,
    ) -> None:
        if port not in range(65536):
            raise MisuseError(f"port is {port!r}", hint="give a number from 0 to 65535")
        self._prometheus = load("prometheus_client", extra="prometheus")
        self._every_s = seconds(every, "every")
        self._clock = clock or SystemClock()
        self._events = events or Events()
        self._host = host
        self._port = port
        self._registry: CollectorRegistry = (
            self._prometheus.CollectorRegistry() if registry is None else registry
        )
        self.collector = QueueCollector(
            store, old_after_s=_TURNS * self._every_s + _LIMIT_S, clock=self._clock
        )
        self._looked = asyncio.Event()
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it is scraped, once it was started."""
        port = self._port if self._server is None else self._server.port
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{port}/metrics"

    async def start(self) -> Self:
        """Begins to listen, after a first look at the store. Doing it again does nothing.

        Raises:
            MisuseError: Nobody can listen there, as on a port that is taken.
        """
        if self._task is not None:
            return self
        self._registry.register(self.collector)
        try:
            self._server = self._listen()
            self._task = asyncio.create_task(self._run(), name="queue exporter")
            await self._looked.wait()
        except BaseException:
            await self._end()
            raise
        return self

    async def stop(self) -> None:
        """Ends listening and reading. Doing it again does nothing."""
        if self._task is not None:
            await self._end()

    async def _end(self) -> None:
        task, self._task = self._task, None
        server, self._server = self._server, None
        self._registry.unregister(self.collector)
        if server is not None:
            await asyncio.to_thread(server.close)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def _listen(self) -> "_Server":
        """On the loop, which it holds up for no longer than the machine needs to know its name."""
        try:
            found = self._prometheus.start_http_server(
                self._port, addr=self._host, registry=self._registry
            )
        except OSError as error:
            raise MisuseError(
                f"metrics cannot be served at {self.url}: {error.strerror or error}",
                hint="give an address of this machine, and a port that is free",
            ) from error
        return _Server(*found)

    async def _run(self) -> None:
        told = False
        while True:
            error = await self.collector.refresh()
            self._looked.set()
            if error is not None and not told:
                self._events.emit(StoreUnread(error=error))
            told = error is not None
            await self._clock.sleep_s(self._every_s)


class _Server:
    """What `start_http_server` started."""

    def __init__(self, server: Any, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread
        self.port: int = server.server_port

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
