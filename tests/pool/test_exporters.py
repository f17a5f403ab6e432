"""Exporters: what Prometheus scrapes and StatsD receives is what the pool counts."""

import asyncio
import itertools
import math
import re
import socket
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import DuplicateTimeseries

from mailrace.errors import MisuseError
from mailrace.events import Events
from mailrace.pool import (
    BreakerSettings,
    Health,
    Ledger,
    MemorySettings,
    Numbers,
    Pool,
    RetryPolicy,
    RetrySchedule,
    Summary,
    Times,
    exporters,
)
from mailrace.pool.exporters import (
    ExportFailed,
    PrometheusCollector,
    StatsdExporter,
    statsd,
    statsd_lines,
)
from mailrace.pool.exporters.metrics import DURATIONS, METRICS
from mailrace.pool.exporters.reading import Reading, ask
from mailrace.pool.exporters.statsd_lines import Line, Names, datagrams, lines_of, payload
from mailrace.pool.health import Code
from tests.support.clock import VirtualClock, settle

# Without types of their own.
openmetrics = import_module("prometheus_client.openmetrics.exposition")
strict_parser = import_module("prometheus_client.openmetrics.parser")

WAIT_S = 60.0
PREFIX = "mailrace_pool_"


async def double(number: int) -> int:
    return 2 * number


async def fail() -> None:
    raise ValueError("no")


def documented() -> dict[str, tuple[str, str, str]]:
    """Label, type and meaning by name, from the table."""
    rows = re.findall(
        r"^\| `(\w+)` \| (?:`(\w+)` )?\| (\w+) \| (.+) \|$", exporters.__doc__ or "", re.MULTILINE
    )
    return {name: (label, kind, meaning) for name, label, kind, meaning in rows}


def scraped(*pools: Pool, timeout: float = WAIT_S) -> dict[str, Family]:
    """The families of a scrape, read from the text that a server would get."""
    registry = CollectorRegistry()
    registry.register(PrometheusCollector(*pools, timeout=timeout))
    text = generate_latest(registry).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(families: Mapping[str, Family], name: str) -> dict[str, float]:
    """The values of a metric by their label other than `pool`, or by pool."""
    found: dict[str, float] = {}
    for sample in families[PREFIX + name].samples:
        if sample.name in (PREFIX + name, f"{PREFIX}{name}_total"):
            labels = [value for label, value in sample.labels.items() if label != "pool"]
            found[labels[0] if labels else sample.labels["pool"]] = sample.value
    return found


def reading(number: int = 1) -> Reading:
    """One in which nothing is zero."""
    lately = Summary(
        count=number, mean_s=0.5, total_s=number, p50_s=0.25, p95_s=0.5, p99_s=0.75, max_s=1.0
    )
    times = Times(count=number, total_s=number / 2, last_minute=lately, last_5_minutes=lately)
    counts: dict[str, Any] = dict.fromkeys(Numbers.__dataclass_fields__, number)
    counts |= {"ledger": Ledger(**dict.fromkeys(Ledger.__dataclass_fields__, number))}
    return Reading(numbers=Numbers(**counts | {"wait": times, "run": times}), health=Health())


@contextmanager
def pool_elsewhere(name: str) -> Iterator[Pool]:
    """A started pool on a loop of its own in a thread of its own."""
    pool = Pool(name=name)
    loop = asyncio.new_event_loop()
    faults: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, fault: faults.append(fault))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(pool.start(), loop).result(WAIT_S)
    try:
        yield pool
    finally:
        asyncio.run_coroutine_threadsafe(pool.close(), loop).result(WAIT_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(WAIT_S)
        loop.close()
    assert faults == []


class Receiver:
    """A StatsD server: a UDP socket, and what came in."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        self.datagrams: list[bytes] = []

    def close(self) -> None:
        self._socket.close()

    async def next(self) -> dict[str, str]:
        """What one send brought, by name; waits for it to come."""
        async with asyncio.timeout(WAIT_S):
            first = await asyncio.get_running_loop().sock_recv(self._socket, 65536)
        self.datagrams = [first]
        return self._read()  # one send is one turn of the loop: the rest of it is here

    def rest(self) -> dict[str, str]:
        """The same without waiting."""
        self.datagrams = []
        return self._read()

    def lines(self) -> list[str]:
        return [line for datagram in self.datagrams for line in datagram.decode().splitlines()]

    def _read(self) -> dict[str, str]:
        self.datagrams += self._waiting()
        return dict(line.split(":", 1) for line in self.lines())

    def _waiting(self) -> Iterator[bytes]:
        while True:
            try:
                yield self._socket.recv(65536)
            except BlockingIOError:
                return


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def lookup_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


# What there is.


def test_prometheus_has_the_metrics_of_the_table_and_no_others() -> None:
    registry = CollectorRegistry()
    table = documented()
    for family in PrometheusCollector(Pool()).describe():
        name = family.name.removeprefix(PREFIX)
        _, kind, meaning = table.pop(name)
        assert family.name == PREFIX + name
        assert family.type == kind
        assert name == "up" or family.documentation == f"{meaning}."
    assert table == {}
    registry.register(PrometheusCollector(Pool()))
    with pytest.raises(DuplicateTimeseries):
        registry.register(PrometheusCollector(Pool(name="other")))


def test_statsd_has_the_metrics_of_the_table_and_no_others() -> None:
    names = {line.text.split(":")[0] for line in lines_of({"p": reading()}, Names("m", None), {})}
    found = {name.removeprefix("m.p.").partition(".")[0] for name in names}
    assert found == documented().keys() - {"up"}
    parts = {"p50", "p95", "p99", "sum", "count"}
    for durations in DURATIONS:
        assert {f"m.p.{durations.name}.{part}" for part in parts} <= names


async def test_every_documented_label_is_there() -> None:
    memory = MemorySettings(process_max_bytes=1 << 50)
    async with Pool(workers_min=1, workers_max=3, memory=memory) as pool:
        pool.scale(+1)
        pool.scale(-1)
        families = scraped(pool)
    for name, (label, kind, _) in documented().items():
        labels = {key for sample in families[PREFIX + name].samples for key in sample.labels}
        expected = {"pool", label, "quantile" if kind == "summary" else ""} - {""}
        assert labels == expected, name


def test_every_number_that_a_pool_has_is_exported() -> None:
    """Each field of the numbers and of the ledger, made 7, changes what is exported."""

    def plain(reading: Reading) -> list[Mapping[str, float]]:
        return [metric.values(reading) for metric in METRICS]

    base = reading(1)
    fields = {*Numbers.__dataclass_fields__} - {"ledger", "wait", "run"}
    for field in fields:
        other: dict[str, Any] = {field: 7}
        changed = replace(base.numbers, **other)
        assert plain(replace(base, numbers=changed)) != plain(base), field
    for field in Ledger.__dataclass_fields__:
        ledger = replace(base.numbers.ledger, **{field: 7})
        changed = replace(base.numbers, ledger=ledger)
        assert plain(replace(base, numbers=changed)) != plain(base), field


# Prometheus.


async def test_a_scrape_says_what_the_pool_counted() -> None:
    retry = RetryPolicy(delays=RetrySchedule(delays_s=(0.001,)))
    async with Pool(name="mails", workers=2) as pool:
        assert [value async for value in pool.map(double, range(5))] == [0, 2, 4, 6, 8]
        await (await pool.options(retry=retry).submit(fail)).outcome()
        pool.pause()
        waiting = await pool.submit(double, 1)
        (await pool.submit(double, 2)).cancel()
        families = scraped(pool)
        assert values(families, "up") == {"mails": 1}
        assert values(families, "jobs") == {
            "completed": 5,
            "failed": 1,
            "cancelled": 1,
            "expired": 0,
            "dropped": 0,
            "handed_back": 0,
        }
        assert values(families, "jobs_unfinished") == {"queued": 1, "delayed": 0, "running": 0}
        assert values(families, "jobs_accepted") == {"mails": 8}
        assert values(families, "retries") == {"mails": 1}
        assert values(families, "dead_letters") == {"mails": 1}
        assert values(families, "workers") == {"mails": 2}
        assert values(families, "health_status") == {"mails": 1}
        reasons = values(families, "health_reasons")
        assert {code for code, status in reasons.items() if status} == {"paused"}
        assert set(reasons) == set(Code)
        assert values(families, "last_scaling_timestamp_seconds") == {}
        assert values(families, "memory_used_bytes") == {}
        assert values(families, "memory_limit_bytes") == {}
        assert values(families, "breakers_open") == {"mails": 0}
        pool.resume()
        await waiting


async def test_memory_and_breakers_are_scraped_where_there_are_any() -> None:
    breaker = BreakerSettings(failures=1)
    memory = MemorySettings(process_max_bytes=1 << 50, share_of_cgroup=None)
    async with Pool(name="mails", memory=memory, breaker=breaker, key_breaker=breaker) as pool:
        await (await pool.options(key="a").submit(fail)).outcome()
        families = scraped(pool)
        assert values(families, "breakers_open") == {"mails": 2}
        assert values(families, "memory_limit_bytes") == {"mails": 1 << 50}
        assert 1 << 20 < values(families, "memory_used_bytes")["mails"] < 1 << 50


async def test_a_summary_has_quantiles_of_late_and_totals_of_ever() -> None:
    clock = VirtualClock()
    async with Pool(name="mails", clock=clock) as pool:
        gate = asyncio.Event()
        job = await pool.submit(gate.wait)
        await clock.advance(4.0)
        gate.set()
        await job
        samples = scraped(pool)[PREFIX + "run_seconds"].samples
        found = {(sample.name, sample.labels.get("quantile")): sample.value for sample in samples}
        assert found[PREFIX + "run_seconds", "0.95"] == pytest.approx(4.0, rel=1 / 64)
        assert found[PREFIX + "run_seconds_sum", None] == 4.0
        assert found[PREFIX + "run_seconds_count", None] == 1
        await clock.advance(300.0)
        samples = scraped(pool)[PREFIX + "run_seconds"].samples
        found = {(sample.name, sample.labels.get("quantile")): sample.value for sample in samples}
        assert all(math.isnan(found[PREFIX + "run_seconds", q]) for q in ("0.5", "0.95", "0.99"))
        assert found[PREFIX + "run_seconds_sum", None] == 4.0


async def test_without_percentiles_there_are_no_summaries() -> None:
    async with Pool(metrics=False) as pool:
        await (await pool.submit(double, 1))
        families = scraped(pool)
    assert families[PREFIX + "run_seconds"].samples == []
    assert values(families, "jobs")["completed"] == 1


async def test_the_text_is_valid_open_metrics() -> None:
    registry = CollectorRegistry()
    async with Pool(name='a "quoted"\\ name') as pool, Pool(name="b") as other:
        registry.register(PrometheusCollector(pool, other))
        await (await pool.submit(double, 1))
        text = openmetrics.generate_latest(registry).decode()
        families = list(strict_parser.text_string_to_metric_families(text))
    assert len(families) == len(documented())
    up = next(family for family in families if family.name == f"{PREFIX}up")
    assert [sample.labels["pool"] for sample in up.samples] == [pool.name, "b"]


async def test_a_scrape_in_another_thread_reads_on_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    readers: set[int] = set()

    def numbers(pool: Pool, original: Callable[[Pool], Numbers] = Pool.numbers) -> Numbers:
        readers.add(threading.get_ident())
        return original(pool)

    monkeypatch.setattr(Pool, "numbers", numbers)
    registry = CollectorRegistry()
    async with Pool(name="mails") as pool:
        registry.register(PrometheusCollector(pool))
        server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
        url = f"http://127.0.0.1:{server.server_port}/metrics"
        results = pool.map(asyncio.sleep, itertools.repeat(0.001))
        for _ in range(3):
            scrape = asyncio.create_task(asyncio.to_thread(fetch, url))
            while not scrape.done():
                await anext(results)
            found = {family.name: family for family in text_string_to_metric_families(await scrape)}
            assert values(found, "up") == {"mails": 1}
        await results.aclose()
        await asyncio.to_thread(server.shutdown)
        await asyncio.to_thread(thread.join, WAIT_S)
        server.server_close()
    assert readers == {threading.get_ident()}
    completed = values(found, "jobs")["completed"]
    assert 0 < completed <= pool.ledger().completed


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=WAIT_S) as answer:
        body: bytes = answer.read()
    return body.decode()


def test_pools_of_several_loops_are_in_one_scrape() -> None:
    with pool_elsewhere("one") as one, pool_elsewhere("two") as two:
        job = one.submit_threadsafe(double, 21)
        assert job.result(WAIT_S) == 42
        families = scraped(one, two)
        assert values(families, "up") == {"one": 1, "two": 1}
        assert values(families, "jobs_accepted") == {"one": 1, "two": 0}


def test_a_pool_whose_loop_hangs_is_down_and_spoils_no_other() -> None:
    release = threading.Event()
    with pool_elsewhere("hung") as hung, pool_elsewhere("well") as well:
        hung.engine.loop.call_soon_threadsafe(release.wait, WAIT_S)
        try:
            families = scraped(hung, well, timeout=0.05)
        finally:
            release.set()
        assert values(families, "up") == {"hung": 0, "well": 1}
        assert values(families, "workers") == {"well": 2}
        assert values(scraped(hung, well), "up") == {"hung": 1, "well": 1}


def test_a_pool_that_does_not_run_is_down_at_once() -> None:
    never, halted = Pool(name="never"), Pool(name="halted")
    with pool_elsewhere("gone") as gone:
        pass
    loop = asyncio.new_event_loop()
    loop.run_until_complete(halted.start())
    families = scraped(never, gone, halted, timeout=3600)
    assert values(families, "up") == {"never": 0, "gone": 0, "halted": 0}
    assert values(families, "workers") == {}
    loop.run_until_complete(halted.close())
    loop.close()


def test_a_loop_that_is_closed_this_very_moment_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    monkeypatch.setattr("mailrace.pool.exporters.reading._loop_of", lambda _: loop)
    assert ask(Pool()).result(0) is None


async def test_what_fails_in_the_reading_fails_the_scrape(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Pool() as pool:
        monkeypatch.setattr(Pool, "health", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(scraped, pool)


def test_pools_are_told_apart_by_name() -> None:
    with pytest.raises(MisuseError, match="two pools are called 'pool'"):
        PrometheusCollector(Pool(), Pool())
    with pytest.raises(MisuseError, match="at least one"):
        PrometheusCollector()
    with pytest.raises(MisuseError, match="timeout"):
        PrometheusCollector(Pool(), timeout=0)


def test_without_the_library_the_command_that_installs_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client.core", None)
    with pytest.raises(MisuseError, match=re.escape("pip install 'mailrace[prometheus]'")):
        PrometheusCollector(Pool())


# StatsD.


async def test_counters_are_sent_as_what_came_since_and_gauges_as_they_are(
    receiver: Receiver, clock: VirtualClock
) -> None:
    async with (
        Pool(name="mails", clock=clock) as pool,
        StatsdExporter(pool, port=receiver.port, every=10, clock=clock),
    ):
        for _ in range(3):
            await (await pool.submit(double, 1))
        await clock.advance(10)
        first = await receiver.next()
        assert first["mailrace.pool.mails.jobs.completed"] == "3|c"
        assert first["mailrace.pool.mails.workers"] == "2|g"
        assert first["mailrace.pool.mails.wait_seconds.count"] == "3|c"
        assert first["mailrace.pool.mails.wait_seconds.p50"].endswith("|g")
        assert "mailrace.pool.mails.jobs.failed" not in first
        await (await pool.submit(double, 1))
        await (await pool.submit(fail)).outcome()
        await clock.advance(10)
        second = await receiver.next()
        assert second["mailrace.pool.mails.jobs.completed"] == "1|c"
        assert second["mailrace.pool.mails.jobs.failed"] == "1|c"
        await clock.advance(10)
        third = await receiver.next()
        assert "mailrace.pool.mails.jobs.completed" not in third
        assert third["mailrace.pool.mails.workers"] == "2|g"
        await clock.advance(9)
        assert receiver.rest() == {}


async def test_what_happens_while_the_pool_closes_is_sent(
    receiver: Receiver, clock: VirtualClock
) -> None:
    pool = Pool(name="mails", clock=clock)
    async with StatsdExporter(pool, port=receiver.port, clock=clock), pool:
        await pool.submit(double, 1)
    assert receiver.rest()["mailrace.pool.mails.jobs.completed"] == "1|c"


async def test_what_was_counted_before_the_start_is_not_sent(
    receiver: Receiver, clock: VirtualClock
) -> None:
    async with Pool(name="mails", clock=clock) as pool:
        await (await pool.submit(double, 1))
        exporter = StatsdExporter(pool, port=receiver.port, clock=clock)
        async with exporter:
            await clock.advance(10)
            assert "mailrace.pool.mails.jobs.completed" not in await receiver.next()
        await (await pool.submit(double, 1))
        receiver.rest()
        async with exporter:
            await (await pool.submit(double, 1))
        assert receiver.rest()["mailrace.pool.mails.jobs.completed"] == "1|c"


async def test_with_tags_the_names_are_short(receiver: Receiver, clock: VirtualClock) -> None:
    pool = Pool(name="my mails|1", clock=clock)
    tags = {"env": "live"}
    async with (
        StatsdExporter(pool, port=receiver.port, clock=clock, prefix="jobs", tags=tags),
        pool,
    ):
        await pool.submit(double, 1)
    receiver.rest()
    lines = receiver.lines()
    assert "jobs.jobs:1|c|#env:live,pool:my_mails_1,state:completed" in lines
    assert "jobs.workers:0|g|#env:live,pool:my_mails_1" in lines


async def test_datagrams_are_short_and_nothing_is_left_out(
    receiver: Receiver, clock: VirtualClock
) -> None:
    pools = [Pool(name=f"pool-number-{number}") for number in range(20)]
    for pool in pools:
        await pool.start()
    async with StatsdExporter(*pools, port=receiver.port, clock=clock):
        await clock.advance(10)
        numbers = await receiver.next()
    assert all(len(datagram) <= 1400 for datagram in receiver.datagrams)
    assert len(receiver.datagrams) > 1
    assert len(numbers) == len(receiver.lines())
    for pool in pools:
        assert numbers[f"mailrace.pool.{pool.name}.workers"] == "2|g"
        await pool.close()


async def test_a_host_that_is_not_there_costs_nothing(clock: VirtualClock) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    async with Pool(clock=clock) as pool, StatsdExporter(pool, port=port, clock=clock) as exporter:
        for _ in range(3):
            await (await pool.submit(double, 1))
            await clock.advance(10)
    assert exporter.failures == 0


async def test_what_could_not_be_sent_is_made_up_for(
    receiver: Receiver, clock: VirtualClock
) -> None:
    events = Events()
    failed: list[ExportFailed] = []
    events.follow(ExportFailed, failed.append)
    pool = Pool(name="mails", clock=clock)
    exporter = StatsdExporter(pool, port=receiver.port, clock=clock, events=events)
    async with pool, exporter:
        with pytest.MonkeyPatch.context() as patch:
            lookup_fails(patch)
            for _ in range(2):
                await (await pool.submit(double, 1))
                await clock.advance(10)
            assert exporter.failures == 2
        assert [type(event.error) for event in failed] == [socket.gaierror] * 2
        assert (failed[0].host, failed[0].port) == ("127.0.0.1", receiver.port)
        await (await pool.submit(double, 1))
        await clock.advance(10)
        assert (await receiver.next())["mailrace.pool.mails.jobs.completed"] == "3|c"
    assert exporter.failures == 2


async def test_a_name_server_that_does_not_answer_holds_up_nothing(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statsd, "_LIMIT_S", 0.01)
    asked = asyncio.Event()

    async def getaddrinfo(*_: object, **__: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    async with Pool(clock=clock) as pool, StatsdExporter(pool, clock=clock) as exporter:
        await clock.advance(10)
        await asked.wait()
        assert await (await pool.submit(double, 1)) == 2
    assert exporter.failures > 0


async def test_only_the_datagrams_that_failed_are_made_up_for(
    receiver: Receiver, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Flaky(socket.socket):
        sends = 0

        def sendto(self, *words: Any) -> int:
            Flaky.sends += 1
            if Flaky.sends == 2:
                raise BlockingIOError
            return super().sendto(*words)

    pools = [Pool(name=name, clock=clock) for name in ("one", "two")]
    exporter = StatsdExporter(*pools, port=receiver.port, clock=clock)
    async with exporter, pools[0], pools[1]:
        for pool in pools:
            await (await pool.submit(double, 1))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(socket, "socket", Flaky)
            await clock.advance(10)
            first = await receiver.next()
            assert Flaky.sends == 2
        assert exporter.failures == 1
        await clock.advance(10)
        second = await receiver.next()
    total: Counter[str] = Counter()
    for name, text in [*first.items(), *second.items()]:
        value, _, kind = text.partition("|")
        if kind == "c" and name.endswith("jobs_accepted"):
            total[name] += int(value)
    assert total == {f"mailrace.pool.{name}.jobs_accepted": 1 for name in ("one", "two")}


async def test_a_pool_of_another_loop_is_read_on_its_own(
    receiver: Receiver, clock: VirtualClock
) -> None:
    with pool_elsewhere("away") as away:
        async with Pool(name="here") as here:
            async with StatsdExporter(here, away, port=receiver.port, clock=clock):
                await asyncio.wrap_future(
                    await asyncio.to_thread(away.submit_threadsafe, double, 1)
                )
            numbers = receiver.rest()
    assert numbers["mailrace.pool.away.jobs_accepted"] == "1|c"
    assert numbers["mailrace.pool.here.workers"] == "2|g"


async def test_a_pool_whose_loop_hangs_spoils_no_other_export(
    receiver: Receiver, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statsd, "_LIMIT_S", 0.05)
    release = threading.Event()
    with pool_elsewhere("hung") as hung:
        async with Pool(name="well") as well:
            exporter = StatsdExporter(hung, well, port=receiver.port, clock=clock)
            await exporter.start()
            hung.engine.loop.call_soon_threadsafe(release.wait, WAIT_S)
            try:
                await clock.advance(10)
                numbers = await receiver.next()
            finally:
                release.set()
            await exporter.stop()
    assert numbers["mailrace.pool.well.workers"] == "2|g"
    assert not any(".hung." in name for name in numbers)


async def test_start_and_stop_may_be_repeated_and_leave_no_task(
    receiver: Receiver, clock: VirtualClock
) -> None:
    before = asyncio.all_tasks()
    exporter = StatsdExporter(Pool(), port=receiver.port, clock=clock)
    await exporter.stop()
    await asyncio.gather(exporter.start(), exporter.start())
    await settle()
    assert len(asyncio.all_tasks() - before) == 1
    await exporter.stop()
    await exporter.stop()
    assert asyncio.all_tasks() == before
    assert clock.sleepers == 0


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"port": 0}, "port is 0"),
        ({"port": 65536}, "port is 65536"),
        ({"every": 0}, "every is 0"),
        ({"prefix": "a:b"}, "prefix is 'a:b'"),
        ({"prefix": ""}, "prefix is ''"),
        ({"tags": {"env": "a|b"}}, "tag env is 'a|b'"),
        ({"tags": {"a,b": "x"}}, "tag is 'a,b'"),
        ({"prefix": "x" * 1001}, "shorten them to 1000"),
    ],
)
def test_what_cannot_be_sent_is_refused(wrong: dict[str, Any], what: str) -> None:
    with pytest.raises(MisuseError, match=re.escape(what)):
        StatsdExporter(Pool(), **wrong)


def test_pools_whose_names_statsd_cannot_tell_apart_are_refused() -> None:
    with pytest.raises(MisuseError, match="one name in StatsD"):
        StatsdExporter(Pool(name="a b"), Pool(name="a.b"))
    with pytest.raises(MisuseError, match="two pools are called"):
        StatsdExporter(Pool(), Pool())


# StatsD's text.

texts = st.text(st.sampled_from("abc"), min_size=1, max_size=1500)


@given(st.lists(texts))
def test_lines_are_packed_in_order_and_as_tight_as_they_go(given_texts: list[str]) -> None:
    packed = [payload(lines) for lines in datagrams(Line(text, text) for text in given_texts)]
    assert b"\n".join(packed).decode().split("\n") == (given_texts or [""])
    for datagram, following in itertools.pairwise([*packed, b"x" * 1400]):
        assert len(datagram) <= 1400 or b"\n" not in datagram
        assert len(datagram) + 1 + len(following.split(b"\n")[0]) > 1400


@pytest.mark.parametrize(("second", "count"), [(699, 1), (700, 2)])
def test_a_datagram_holds_1400_bytes_and_not_one_more(second: int, count: int) -> None:
    lines = [Line("a", "a" * 700), Line("b", "b" * second)]
    assert len(list(datagrams(lines))) == count


@given(st.floats(0, 1e12))
def test_numbers_have_no_exponent(value: float) -> None:
    text = statsd_lines._number(value)
    assert re.fullmatch(r"\d+(\.\d+)?", text)
    assert float(text) == pytest.approx(value, abs=1e-6)


@given(st.lists(st.integers(0, 1000), min_size=1))
def test_the_sum_of_what_is_sent_is_what_was_counted(gains: list[int]) -> None:
    """However the readings fall; the last one is of a counter that was set back to zero."""
    names, sent, received, total = Names("m", None), dict[str, float](), 0, 0
    for gain in gains:
        total += gain
        for line in lines_of({"p": reading(total)}, names, sent):
            if line.key == "m.p.retries":
                assert line.total == total
                sent[line.key] = total
                received += int(line.text.removeprefix("m.p.retries:").removesuffix("|c"))
    assert received == total
    again = [line.text for line in lines_of({"p": reading(1)}, names, {"m.p.retries": 2})]
    assert "m.p.retries:1|c" in again
