"""The exporter of a store: what Prometheus scrapes is what the store holds."""

import asyncio
import socket
import threading
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from mailrace.errors import MisuseError
from mailrace.events import Events
from mailrace.pool import Pool
from mailrace.pool.exporters import PrometheusCollector
from mailrace.queue import LimitRow, Step, Store
from mailrace.queue import metrics as exported
from mailrace.queue.alerts import DEFAULT_RULES, AlertKind, AlertRule
from mailrace.queue.exporting import QueueCollector, QueueExporter, StoreUnread
from mailrace.queue.jobrows import EndedCount, JobFilter
from mailrace.queue.letters import EVERY_S, DeadLetters
from mailrace.queue.metrics import CATEGORIES, METRICS, StoreMetric
from mailrace.queue.processes import NewProcess, ProcessState, Vitals
from mailrace.queue.queuerules import QueueRules
from mailrace.queue.reading import StoreReading
from mailrace.queue.states import JobState
from mailrace.queue.supervisors import NOTES, SupervisorRow
from mailrace.queue.totals import Part, Totals
from mailrace.queue.watching import Watching, write_rules
from tests.queue.houses import Estate, House, SqliteHouse, add, claim_of, ended, now_ms
from tests.queue.world import FlakyStore
from tests.support.clock import VirtualClock, settle

WAIT_S = 60.0
LEASE_S = 600.0


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[SqliteHouse]:
    found = SqliteHouse(tmp_path, VirtualClock())
    yield found
    await found.close()


@pytest.fixture
async def any_house(estate: Estate) -> AsyncIterator[House]:
    found = estate.house()
    yield found
    await found.close()


@pytest.fixture
async def store(house: SqliteHouse) -> Store:
    return await house.opened()


@pytest.fixture
async def exporter(house: SqliteHouse, store: Store) -> AsyncIterator[QueueExporter]:
    async with QueueExporter(store, port=0, clock=house.clock) as found:
        yield found


class Scrape:
    """What a server is answered, read as a server reads it."""

    def __init__(self, text: str) -> None:
        self.families = {found.name: found for found in text_string_to_metric_families(text)}

    def values(self, name: str) -> dict[str, float]:
        """The values of a metric by those of its labels, joined by spaces."""
        family = self.families[f"mailrace_{name}"]
        return {" ".join(sample.labels.values()): sample.value for sample in family.samples}

    def some(self, name: str) -> dict[str, float]:
        """Those that are not zero."""
        return {labels: value for labels, value in self.values(name).items() if value}

    @property
    def up(self) -> float:
        return self.values("store_up")[""]


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=WAIT_S) as answer:
        text: str = answer.read().decode()
    return text


async def scrape(exporter: QueueExporter) -> Scrape:
    return Scrape(await asyncio.to_thread(get, exporter.url))


async def looked(exporter: QueueExporter) -> Scrape:
    """A scrape of what is so now."""
    assert await exporter.collector.refresh() is None
    return await scrape(exporter)


async def turned(clock: VirtualClock, seconds: float) -> None:
    """Lets time pass, and each turn of the exporter come to its end in its own time."""
    until_s = clock.monotonic_s() + seconds
    while clock.monotonic_s() < until_s:
        clock.move_to(min(until_s, clock.next_s or until_s))
        async with asyncio.timeout(WAIT_S):
            while not clock.sleepers:
                await settle()


async def process(store: Store, host: str = "mill", **vitals: Any) -> int:
    entry = NewProcess(journal="j", host=host, queues=("*",), concurrency=20)
    found = await store.register(entry, LEASE_S)
    assert await asyncio.to_thread(store.renewer(found, LEASE_S), Vitals(**vitals))
    return found


async def end(store: Store, worker: int, step: Step, jobs: int = 1, **fields: Any) -> list[int]:
    """Has so many jobs begin and end."""
    claimed = await claim_of(store, worker, jobs)
    assert await store.finish(ended(claimed, step, **fields)) == 0
    return [job.id for job in claimed]


# What is shown


async def test_jobs_by_queue_and_state_and_what_is_due(
    house: SqliteHouse, store: Store, exporter: QueueExporter
) -> None:
    await add(store, "a", "b", "c")
    await add(store, "later", delay_ms=60_000)
    await add(store, "other", queue="mail")
    worker = await process(store)
    await claim_of(store, worker, 1)
    await store.set_queue(QueueRules(name="mail", paused=True, draining=True))
    await house.clock.advance(7)
    found = await looked(exporter)
    assert found.some("queue_jobs") == {
        "default available": 2, "default running": 1, "default scheduled": 1, "mail available": 1,
    }  # fmt: skip
    assert len(found.values("queue_jobs")) == 2 * len(JobState)
    assert found.values("queue_jobs_due") == {"default": 2, "mail": 1}
    assert found.values("queue_oldest_due_seconds") == {"default": 7, "mail": 7}
    assert found.values("queue_paused") == {"default": 0, "mail": 1}
    assert found.values("queue_draining") == {"default": 0, "mail": 1}
    await claim_of(store, worker, 10)
    found = await looked(exporter)
    assert found.values("queue_oldest_due_seconds") == {"default": 0, "mail": 7}


async def test_processes_by_host_and_how_they_are(
    house: SqliteHouse, store: Store, exporter: QueueExporter
) -> None:
    """A dead one shows as such and in its heartbeat; what it had in hand is not so any more."""
    dead = NewProcess(journal="j", host="mill", concurrency=20)
    gone = await store.register(dead, 30)
    last = Vitals(in_hand=9, stale_s=99, breakers_open=("fax",))
    assert await asyncio.to_thread(store.renewer(gone, 30), last)
    await house.clock.advance(31)
    await process(store, in_hand=3, held=5, stale_s=0.5, breakers_open=("mail", "sms"))
    await process(store, in_hand=4, stale_s=2.5, breakers_open=("mail",))
    await process(store, "weir", state=ProcessState.PAUSED, held=7)
    await house.clock.advance(2)
    found = await looked(exporter)
    assert found.some("queue_processes") == {"mill working": 2, "mill dead": 1, "weir paused": 1}
    assert found.values("queue_workers") == {"mill": 40, "weir": 20}
    assert found.values("queue_workers_active") == {"mill": 7, "weir": 0}
    assert found.values("queue_jobs_held") == {"mill": 5, "weir": 7}
    assert found.values("queue_heartbeat_age_seconds") == {"mill": 33, "weir": 2}
    assert found.values("queue_loop_stale_seconds") == {"mill": 2.5, "weir": 0}
    assert found.values("queue_breakers_open") == {"mail": 2, "sms": 1}


async def test_supervisors_by_what_they_do(
    house: SqliteHouse, store: Store, exporter: QueueExporter
) -> None:
    silent = SupervisorRow(name="one", heartbeat_ms=now_ms(house))
    await store.note(NOTES + "one", msgspec.json.encode(silent))
    await house.clock.advance(16)
    alive = SupervisorRow(name="two", state="restarting", heartbeat_ms=now_ms(house))
    await store.note(NOTES + "two", msgspec.json.encode(alive))
    found = await looked(exporter)
    assert found.values("queue_supervisors") == {
        "working": 0, "restarting": 1, "draining": 0, "gone": 1,
    }  # fmt: skip


async def test_limits_at_their_pace(store: Store, exporter: QueueExporter) -> None:
    await store.set_limit(LimitRow(name="relay", rates="100/s", adaptive=True))
    await store.set_limit(LimitRow(name="tight", rates="1/min"))
    before = await looked(exporter)
    await store.slow_limit("relay", factor=0.5, floor=0.1, cool_down_s=1)
    await store.take_slots("tight", None, span_s=0.001)
    await store.take_slots("tight", None, span_s=0.001)
    found = await looked(exporter)
    assert found.values("queue_limit_pace_ratio") == {"relay": 0.5, "tight": 1}
    rate, slowed = (one.values("queue_limit_slots_per_second")["relay"] for one in (before, found))
    assert 50 < rate <= 100
    assert slowed == pytest.approx(rate / 2)
    assert before.values("queue_limit_next_slot_seconds") == {"relay": 0, "tight": 0}
    assert 0 < found.values("queue_limit_next_slot_seconds")["tight"] <= 180


async def test_alerts_that_are_open_by_kind(
    house: SqliteHouse, store: Store, exporter: QueueExporter
) -> None:
    backlog = AlertRule(kind=AlertKind.BACKLOG, limit=1, for_s=30)
    await write_rules(store, (backlog, *DEFAULT_RULES[1:]))
    await add(store, "a", "b")
    watching = Watching(store, Events())
    await watching.turn()
    assert (await looked(exporter)).some("queue_alerts_open") == {}
    await house.clock.advance(31)
    await watching.turn()
    found = await looked(exporter)
    assert found.some("queue_alerts_open") == {"backlog": 1}
    assert set(found.values("queue_alerts_open")) == set(AlertKind)


async def test_what_is_too_much_is_left_out_and_said(
    store: Store, exporter: QueueExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exported, "SERIES_MAX", 2)
    for name in ("a", "b", "c", "d", "e"):
        await store.set_limit(LimitRow(name=name, rates="1/s"))
    for name in ("x", "y", "z"):
        await add(store, "one", queue=name)
        await process(store, name)
    await process(store, "y", in_hand=1)
    found = await looked(exporter)
    assert set(found.values("queue_limit_pace_ratio")) == {"a", "b"}
    assert set(found.values("queue_jobs_due")) == {"x", "y"}
    assert found.values("queue_workers_active") == {"x": 0, "y": 1}
    assert found.values("queue_left_out") == {"queues": 1, "hosts": 1, "limits": 3}


async def test_a_limit_of_another_version_has_a_pace_but_no_rate() -> None:
    reading = StoreReading(
        now_ms=0, rules={}, ended={}, dead_letters={},
        limits=[LimitRow(name="odd", rates="as the moon is"), LimitRow(name="own", rates="1/s")],
    )  # fmt: skip
    values = {metric.name: dict(metric.values(reading)) for metric in METRICS}
    assert set(values["limit_pace_ratio"]) == {("odd",), ("own",)}
    assert set(values["limit_slots_per_second"]) == {("own",)}


# Counters


async def test_counters_begin_with_the_exporter_and_never_fall(any_house: House) -> None:
    """On each kind of store."""
    house = any_house
    store = await house.opened()
    worker = await process(store)
    await add(store, *"abcdefgh")
    await end(store, worker, Step.COMPLETE, 2)
    await end(store, worker, Step.FAIL, 1, category="data")
    async with QueueExporter(store, port=0, clock=house.clock) as exporter:
        found = await scrape(exporter)
        for name in ("queue_jobs_completed", "queue_jobs_failed", "queue_retries"):
            assert found.values(name) == {"default": 0}
        assert found.values("queue_dead_letters") == {f"{name} default": 0 for name in CATEGORIES}
        await end(store, worker, Step.COMPLETE, 1)
        await house.clock.advance(1)
        for category in ("data", "odd", ""):
            await end(store, worker, Step.FAIL, 1, category=category, at_ms=now_ms(house))
        await end(store, worker, Step.RETRY, 1, delay_ms=60_000)
        await turned(house.clock, EVERY_S)
        expected = {"jobs_completed": 1.0, "jobs_failed": 3.0, "retries": 1.0}
        for _ in range(2):
            found = await looked(exporter)
            seen = {name: found.values(f"queue_{name}")["default"] for name in expected}
            assert seen == expected
            assert found.some("queue_dead_letters") == {
                "data default": 1, "odd default": 1, "none default": 1,
            }  # fmt: skip
            assert await store.delete(JobFilter(states=(JobState.COMPLETED, JobState.FAILED)))
            await add(store, "again")
            await end(store, worker, Step.COMPLETE)
            await turned(house.clock, EVERY_S)
            expected["jobs_completed"] += 1
    assert found.families["mailrace_queue_jobs_failed"].type == "counter"


async def test_what_ends_while_the_store_is_out_of_reach_is_counted_once(
    house: SqliteHouse,
) -> None:
    """However long that takes, and however often it is looked at meanwhile."""
    store = FlakyStore.open(house.path, house.clock)
    other = await house.opened()
    worker = await process(other)
    async with QueueExporter(store, port=0, clock=house.clock) as exporter:
        done = Counter[str]()
        for pause_s in (1, 4, 11, 59, 61, 240, 590, 31):
            await add(other, "a", "b", "c")
            await end(other, worker, Step.COMPLETE, 1)
            for category in ("network", "data"):
                late_ms = now_ms(house) - 200_000
                await end(other, worker, Step.FAIL, 1, category=category, at_ms=late_ms)
            done.update({"completed": 1, "failed": 2})
            store.down = pause_s in {61, 240}
            await turned(house.clock, pause_s)
            found = await scrape(exporter)
            assert found.up == (not store.down)
        found = await looked(exporter)
        assert found.values("queue_jobs_completed") == {"default": done["completed"]}
        assert found.values("queue_jobs_failed") == {"default": done["failed"]}
        assert found.some("queue_dead_letters") == {"network default": 8, "data default": 8}
    await store.close()


@given(
    st.lists(
        st.tuples(
            st.integers(0, 150),
            st.lists(st.tuples(st.integers(0, 60), st.sampled_from("ab")), max_size=5),
            st.booleans(),
        ),
        max_size=30,
    )
)
def test_totals_are_all_that_came_after_the_first_reading(
    turns: list[tuple[int, list[tuple[int, str]], bool]],
) -> None:
    """Slices of 10, read back to 60 before the last reading, in which jobs come in late."""
    totals: Totals[str] = Totals()
    kept: Counter[tuple[int, str]] = Counter()
    expected: Counter[str] = Counter()
    now, last = 1000, 1000
    totals.add([], settled_ms=0)
    for passed, jobs, is_read in turns:
        now += passed
        for late, key in jobs:
            at = max(now - late, last - 50)
            kept[at // 10 * 10, key] += 1
            expected[key] += 1
        if is_read:
            first = (last - 60) // 10 * 10
            parts = [Part(at, key, jobs) for (at, key), jobs in kept.items() if at >= first]
            totals.add(parts, settled_ms=(now - 60) // 10 * 10)
            last = now
            assert totals.now() == expected


def test_a_slice_that_falls_takes_nothing_away() -> None:
    totals: Totals[str] = Totals()
    totals.add([Part(0, "a", 5)], settled_ms=0)
    for jobs, total in ((7, 2), (3, 2), (6, 2), (8, 3)):
        totals.add([Part(0, "a", jobs)], settled_ms=0)
        assert totals.now() == {"a": total}


class SlowLetters:
    """Takes its time to group dead letters, of which there are always more."""

    def __init__(self, clock: VirtualClock, takes_s: float) -> None:
        self.asked = 0
        self._clock = clock
        self._takes_s = takes_s

    async def ended_counts(self, where: JobFilter) -> list[EndedCount]:
        self.asked += 1
        self._clock.move_to(self._clock.monotonic_s() + self._takes_s)
        return []


@pytest.mark.parametrize(("takes_s", "every_s"), [(0.0, EVERY_S), (1.0, 180.0)])
async def test_dead_letters_are_grouped_for_a_small_part_of_the_time(
    takes_s: float, every_s: float
) -> None:
    """Six slices of a minute each time, and those of an hour after a long night."""
    clock = VirtualClock(unix_s=1_800_000_007)
    letters = SlowLetters(clock, takes_s)
    counted = DeadLetters(letters, clock)
    for seconds, asked in ((0.0, 6), (every_s - 0.1, 6), (every_s, 12)):
        clock.move_to(seconds)
        await counted.read(1_800_000_007_000)
        assert letters.asked == asked
    clock.move_to(40_000.0)
    await counted.read(1_800_040_007_000)
    assert letters.asked == 12 + 61


# A store that does not answer


async def test_a_store_out_of_reach_is_said_and_nothing_old_is_shown(house: SqliteHouse) -> None:
    store = FlakyStore.open(house.path, house.clock)
    events, told = Events(), list[StoreUnread]()
    events.follow(StoreUnread, told.append)
    clock = house.clock
    async with QueueExporter(store, port=0, clock=clock, every=5, events=events) as exporter:
        await add(store, "a")
        await turned(clock, 5)
        found = await scrape(exporter)
        assert (found.up, found.values("store_snapshot_age_seconds")) == (1, {"": 0})
        assert found.values("queue_jobs_due") == {"default": 1}
        store.down = True
        for age_s in (5, 10):
            await turned(clock, 5)
            found = await scrape(exporter)
            assert (found.up, found.values("store_snapshot_age_seconds")) == (0, {"": age_s})
            assert set(found.families) == {
                "mailrace_store_up",
                "mailrace_store_snapshot_age_seconds",
            }
        assert [str(event.error) for event in told] == ["the store is out of reach"]
        store.down = False
        await turned(clock, 5)
        found = await scrape(exporter)
        assert (found.up, found.values("queue_jobs_due")) == (1, {"default": 1})
        store.down = True
        await turned(clock, 5)
        assert len(told) == 2
    await store.close()


async def test_an_exporter_begins_also_while_the_store_is_out_of_reach(house: SqliteHouse) -> None:
    store = FlakyStore.open(house.path, house.clock)
    store.down = True
    async with QueueExporter(store, port=0, clock=house.clock) as exporter:
        found = await scrape(exporter)
        assert (found.up, found.values("store_snapshot_age_seconds")) == (0, {})
        store.down = False
        await turned(house.clock, 5)
        assert (await scrape(exporter)).up == 1
    await store.close()


async def test_what_was_not_read_for_long_is_out_of_reach(house: SqliteHouse, store: Store) -> None:
    """A loop that stands still fails at nothing."""
    collector = QueueCollector(store, old_after_s=25, clock=house.clock)
    await collector.refresh()
    await add(store, "a")
    for passed_s, up in ((25, 1), (1, 0)):
        await house.clock.advance(passed_s)
        families = {family.name: family for family in collector.collect()}
        assert families["mailrace_store_up"].samples[0].value == up
        assert ("mailrace_queue_jobs_due" in families) is bool(up)


# The server


async def test_it_reads_every_few_seconds(house: SqliteHouse, store: Store) -> None:
    async with QueueExporter(store, port=0, every=2, clock=house.clock) as exporter:
        await add(store, "a")
        await turned(house.clock, 1.9)
        assert (await scrape(exporter)).values("queue_jobs_due") == {}
        await turned(house.clock, 0.1)
        assert (await scrape(exporter)).values("queue_jobs_due") == {"default": 1}


async def test_it_leaves_nothing_behind(house: SqliteHouse, store: Store) -> None:
    threads = set(threading.enumerate())
    registry = CollectorRegistry()
    exporter = QueueExporter(store, port=0, clock=house.clock, registry=registry)
    for _ in range(2):
        async with exporter:
            assert await exporter.start() is exporter
            url = exporter.url
            assert Scrape(await asyncio.to_thread(get, url)).up == 1
        await exporter.stop()
        with pytest.raises(OSError, match="refused"):
            await asyncio.to_thread(get, url)
        assert list(registry.collect()) == []
    assert not house.clock.sleepers
    left = set(threading.enumerate()) - threads
    assert not [thread for thread in left if "serve_forever" in thread.name]


async def test_a_port_that_is_taken_is_told_and_nothing_stays_registered(store: Store) -> None:
    registry = CollectorRegistry()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        exporter = QueueExporter(store, port=port, registry=registry)
        with pytest.raises(MisuseError, match=f"cannot be served at http://127.0.0.1:{port}/"):
            await exporter.start()
    assert list(registry.collect()) == []
    await exporter.stop()


@pytest.mark.parametrize("port", [-1, 65536])
async def test_a_port_that_is_none_is_refused(store: Store, port: int) -> None:
    with pytest.raises(MisuseError, match=f"port is {port}"):
        QueueExporter(store, port=port)


async def test_it_listens_on_this_machine_unless_told_otherwise(store: Store) -> None:
    assert QueueExporter(store).url == "http://127.0.0.1:9464/metrics"
    assert QueueExporter(store, host="::1", port=1).url == "http://[::1]:1/metrics"


async def test_a_pool_and_a_store_in_one_registry(house: SqliteHouse, store: Store) -> None:
    registry = CollectorRegistry()
    async with Pool(name="mails") as pool:
        registry.register(PrometheusCollector(pool))
        async with QueueExporter(store, port=0, clock=house.clock, registry=registry) as exporter:
            found = await scrape(exporter)
    assert found.up == 1
    assert found.values("pool_up") == {"mails": 1}


# The table of metrics


def name_and_labels(families: Iterator[Any]) -> Mapping[str, set[tuple[str, ...]]]:
    return {family.name: {tuple(sample.labels) for sample in family.samples} for family in families}


async def test_what_is_described_is_what_is_collected(
    store: Store, exporter: QueueExporter
) -> None:
    await store.set_limit(LimitRow(name="a", rates="1/s"))
    await add(store, "a")
    await process(store, breakers_open=("kind",))
    await looked(exporter)
    collected = name_and_labels(iter(exporter.collector.collect()))
    assert set(collected) == set(name_and_labels(iter(exporter.collector.describe())))
    for metric in METRICS:
        assert collected[f"mailrace_queue_{metric.name}"] == {metric.labels}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_of_an_empty_store_has_values_that_fit_its_labels(metric: StoreMetric) -> None:
    reading = StoreReading(now_ms=0, rules={}, ended={}, dead_letters={})
    assert all(len(labels) == len(metric.labels) for labels, _ in metric.values(reading))
    assert metric.meaning.endswith(".")
