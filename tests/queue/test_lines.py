"""Jobs that wait for limits: in lines of their own, bounded, and let go by slots alone."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from mailrace.errors import UnavailableError
from mailrace.queue import ClaimedJob, LimitRow
from mailrace.queue.lines import Lines
from mailrace.queue.queuerules import QueueRules
from tests.pool.test_rate import most_in_a_window
from tests.queue.world import FlakyStore, World
from tests.support.clock import VirtualClock


def job(number: int, tenant: str = "", queue: str = "queue") -> ClaimedJob:
    return ClaimedJob(
        number, 1, 1, False, "kind", queue, tenant, 0, 0, None, None, None, 0, None,
        msgspec.Raw(b"null"),
    )  # fmt: skip


class Bench:
    """Lines on one store, and when they let jobs go."""

    def __init__(self, store: FlakyStore, clock: VirtualClock) -> None:
        self.store, self.clock = store, clock
        self.rules: dict[str, QueueRules] = {}
        self.started: list[tuple[int, float]] = []
        self.troubles: list[Exception] = []
        self.opened: list[Lines] = []

    def lines(self) -> Lines:
        self.opened.append(
            Lines(
                self.store,
                self.clock,
                rules=lambda queue: self.rules.get(queue, QueueRules(name=queue)),
                start=lambda number: self.started.append((number, self.clock.monotonic_s())),
                on_trouble=self.troubles.append,
            )
        )
        return self.opened[-1]

    async def limit(self, name: str, rates: str, *, margin: float = 0.0) -> None:
        await self.store.set_limit(LimitRow(name=name, rates=rates, margin=margin))

    def limited(self, *names: str, queue: str = "queue") -> None:
        self.rules[queue] = QueueRules(name=queue, limits=names)

    def times_s(self, numbers: range | None = None) -> list[float]:
        return [at_s for number, at_s in self.started if numbers is None or number in numbers]

    async def until(self, true: Callable[[], bool], within_s: float = 1000) -> None:
        until_s = self.clock.monotonic_s() + within_s
        while not true():
            assert self.clock.monotonic_s() < until_s, "it never came to that"
            await self.clock.sleep_s(0.05)


@pytest.fixture
async def bench(world: World) -> AsyncIterator[Bench]:
    bench = Bench(world.store, world.clock)
    yield bench
    for lines in bench.opened:
        await lines.cancel()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_what_nothing_limits_is_not_taken(bench: Bench) -> None:
    lines = bench.lines()
    assert not lines.takes(job(1))
    assert lines.room("queue", "") == float("inf")
    assert not lines.is_late(job(1))
    assert bench.started == []


async def test_jobs_go_in_the_order_of_their_coming_and_never_too_fast(bench: Bench) -> None:
    await bench.limit("limit", "10/s")
    bench.limited("limit")
    lines = bench.lines()
    for number in range(50):
        assert lines.takes(job(number))
    await bench.until(lambda: len(bench.started) == 50)
    assert [number for number, _ in bench.started] == list(range(50))
    assert most_in_a_window(bench.times_s(), 1.0) <= 10
    assert bench.clock.monotonic_s() < 5.5


async def test_lines_of_several_processes_share_a_limit(bench: Bench) -> None:
    await bench.limit("limit", "100/s")
    bench.limited("limit")
    lines = [bench.lines() for _ in range(3)]
    for number in range(600):
        lines[number % 3].takes(job(number))
    await bench.until(lambda: len(bench.started) == 600)
    assert most_in_a_window(bench.times_s(), 1.0) <= 100
    assert 5.5 < bench.clock.monotonic_s() < 7


async def test_all_limits_of_a_queue_hold_at_once(bench: Bench) -> None:
    await bench.limit("quick", "10/s")
    await bench.limit("slow", "20/min")
    bench.limited("quick", "slow")
    lines = bench.lines()
    for number in range(60):
        lines.takes(job(number))
    await bench.until(lambda: len(bench.started) == 60)
    assert most_in_a_window(bench.times_s(), 1.0) <= 10
    assert most_in_a_window(bench.times_s(), 60.0) <= 20
    assert bench.clock.monotonic_s() < 60 * 60 / 20 + 5


async def test_queues_that_share_a_limit_share_it_fairly(bench: Bench) -> None:
    await bench.limit("limit", "20/s")
    bench.limited("limit", queue="a")
    bench.limited("limit", queue="b")
    lines = bench.lines()
    for number in range(200):
        lines.takes(job(number, queue="a" if number < 100 else "b"))
    await bench.until(lambda: len(bench.started) == 100)
    assert sum(number < 100 for number, _ in bench.started) == pytest.approx(50, abs=3)


async def test_a_tenant_whose_limit_is_reached_holds_up_no_other(bench: Bench) -> None:
    await bench.limit("limit-slow", "1/min")
    await bench.limit("limit-quick", "100/s")
    bench.limited("limit-{tenant}")
    lines = bench.lines()
    for number in range(20):
        lines.takes(job(number, "slow"))
    for number in range(100, 200):
        lines.takes(job(number, "quick"))
    await bench.until(lambda: len(bench.times_s(range(100, 200))) == 100, 2)
    assert len(bench.times_s(range(20))) == 1


@pytest.mark.parametrize("way_s", [0.0, 0.002, 0.01])
async def test_many_tenants_behind_one_limit_use_all_of_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, way_s: float
) -> None:
    """Each has a limit of its own besides, and the store takes its time."""
    take = bench.store.take_together

    async def take_slowly(*arguments: Any, **named: Any) -> Any:
        await bench.clock.sleep_s(way_s)
        return await take(*arguments, **named)

    monkeypatch.setattr(bench.store, "take_together", take_slowly)
    await bench.limit("all", "100/s")
    for tenant in range(30):
        await bench.limit(f"t{tenant}", "10/s")
    bench.limited("{tenant}", "all")
    lines = bench.lines()
    for number in range(400):
        lines.takes(job(number, f"t{number % 30}"))
    await bench.until(lambda: len(bench.started) == 400, 60)
    assert most_in_a_window(bench.times_s(), 1.0) <= 100
    assert bench.clock.monotonic_s() < 6.5  # four seconds are the least


async def test_a_rate_that_is_changed_holds_from_then_on(bench: Bench) -> None:
    await bench.limit("limit", "50/s")
    bench.limited("limit")
    lines = bench.lines()
    for number in range(300):
        lines.takes(job(number))
    await bench.until(lambda: len(bench.started) >= 100)
    await bench.limit("limit", "5/s")
    changed_s = bench.clock.monotonic_s()
    await bench.clock.sleep_s(10)
    later_s = [at_s for at_s in bench.times_s() if at_s > changed_s + 0.2]
    assert most_in_a_window(later_s, 1.0) <= 5
    assert 40 <= len(later_s) <= 50
    await bench.limit("limit", "50/s")
    began = len(bench.started)
    await bench.clock.sleep_s(2.5)
    assert len(bench.started) - began > 80


async def test_room_is_a_little_more_than_the_limit_uses_and_less_what_waits(
    bench: Bench,
) -> None:
    await bench.limit("limit", "100/s")
    bench.limited("limit")
    lines = bench.lines()
    assert lines.room("queue", "") == 1  # nothing is known of the limit yet
    lines.takes(job(0))
    await bench.until(lambda: len(bench.started) == 1)
    room = lines.room("queue", "")
    assert 20 <= room <= 40
    for number in range(1, 11):
        lines.takes(job(number))
    assert lines.room("queue", "") == room - 10
    for number in range(11, 200):
        lines.takes(job(number))
    assert lines.room("queue", "") == 0
    assert lines.room("queue", "other") == room
    assert lines.room("free", "") == float("inf")


async def test_a_slow_limit_has_room_for_one(bench: Bench) -> None:
    await bench.limit("limit", "1/min")
    bench.limited("limit")
    lines = bench.lines()
    lines.takes(job(0))
    await bench.until(lambda: len(bench.started) == 1)
    assert lines.room("queue", "") == 1
    lines.takes(job(1))
    assert lines.room("queue", "") == 0


async def test_forgotten_jobs_are_not_let_go_and_others_come_after_them(bench: Bench) -> None:
    await bench.limit("limit", "2/s")
    bench.limited("limit")
    lines = bench.lines()
    for number in range(10):
        lines.takes(job(number))
    await bench.until(lambda: len(bench.started) == 2)
    lines.forget()
    assert lines.room("queue", "") > 0
    await bench.clock.sleep_s(5)
    assert len(bench.started) == 2
    lines.takes(job(20))
    await bench.until(lambda: len(bench.started) == 3)
    assert bench.started[-1][0] == 20


async def test_a_job_that_stood_about_for_too_long_takes_slots_once_more(bench: Bench) -> None:
    await bench.limit("limit", "10/s")
    bench.limited("limit")
    lines = bench.lines()
    lines.takes(job(1))
    await bench.until(lambda: len(bench.started) == 1)
    await bench.clock.sleep_s(0.5)
    assert lines.is_late(job(1))
    assert not lines.is_late(job(1))  # asked once
    for number in range(2, 30):
        lines.takes(job(number))
    asked_s = bench.clock.monotonic_s()
    await lines.wait(job(1))
    assert bench.clock.monotonic_s() - asked_s < 1
    starts_s = [*bench.times_s(range(2, 30)), bench.clock.monotonic_s()]
    await bench.until(lambda: len(bench.started) == 29)
    assert most_in_a_window([*bench.times_s(range(2, 30)), starts_s[-1]], 1.0) <= 10


async def test_a_store_that_fails_lets_nothing_go_and_is_asked_again(bench: Bench) -> None:
    await bench.limit("limit", "50/s")
    bench.limited("limit")
    lines = bench.lines()
    for number in range(100):
        lines.takes(job(number))
    await bench.until(lambda: len(bench.started) > 20)
    bench.store.down = True
    await bench.clock.sleep_s(0.3)  # what was taken by then may still go
    began = len(bench.started)
    await bench.clock.sleep_s(10)
    assert len(bench.started) == began
    assert 5 <= len(bench.troubles) <= 15
    assert {type(trouble) for trouble in bench.troubles} == {UnavailableError}
    bench.store.down = False
    await bench.until(lambda: len(bench.started) == 100, 5)
    assert most_in_a_window(bench.times_s(), 1.0) <= 50


async def test_a_limit_that_is_not_there_lets_nothing_go_until_it_is_set(bench: Bench) -> None:
    bench.limited("nowhere")
    lines = bench.lines()
    lines.takes(job(1))
    await bench.clock.sleep_s(5)
    assert bench.started == []
    assert "no limit 'nowhere'" in str(bench.troubles[0])
    await bench.limit("nowhere", "10/s")
    await bench.until(lambda: len(bench.started) == 1, 3)


async def test_rules_that_change_hold_for_the_lines_that_are_there(bench: Bench) -> None:
    """A limit that a queue gets while its jobs wait for another one."""
    await bench.limit("loose", "20/s")
    await bench.limit("tight", "2/s")
    bench.limited("loose")
    lines = bench.lines()
    for number in range(200):
        lines.takes(job(number))
    await bench.until(lambda: len(bench.started) >= 20)
    bench.limited("loose", "tight")
    changed_s = bench.clock.monotonic_s()
    await bench.clock.sleep_s(10)
    later_s = [at_s for at_s in bench.times_s() if at_s > changed_s + 0.2]
    assert most_in_a_window(later_s, 1.0) <= 2
    bench.limited()
    await bench.until(lambda: len(bench.started) == 200, 2)


@pytest.mark.parametrize("others", [(), ("there",), ("there", "more")])
async def test_nobody_goes_on_waiting_for_a_limit_that_no_longer_holds(
    bench: Bench, others: tuple[str, ...]
) -> None:
    """As after a name was written wrongly, which is one that nobody sets."""
    for name in ("there", "more"):
        await bench.limit(name, "10/s")
    bench.limited("their")
    lines = bench.lines()
    for number in range(3):
        lines.takes(job(number))
    await bench.clock.sleep_s(5)
    assert bench.started == []
    bench.limited(*others)
    lines.renew([])
    await bench.until(lambda: len(bench.started) == 3, 1)


@pytest.mark.parametrize("limits", [("slow",), ("slow", "loose")])
async def test_a_limit_that_is_raised_lets_those_go_who_wait(
    bench: Bench, limits: tuple[str, ...]
) -> None:
    await bench.limit("slow", "1/h")
    await bench.limit("loose", "1000/s")
    bench.limited(*limits)
    lines = bench.lines()
    for number in range(10):
        lines.takes(job(number))
    await bench.until(lambda: len(bench.started) == 1, 3)
    await bench.clock.sleep_s(5)
    assert len(bench.started) == 1
    await bench.limit("slow", "100/s")
    lines.renew(["slow"])
    await bench.until(lambda: len(bench.started) == 10, 3)


async def test_cancelled_lines_leave_nothing(bench: Bench) -> None:
    await bench.limit("limit", "1/s")
    bench.limited("limit")
    lines = bench.lines()
    for number in range(50):
        lines.takes(job(number, f"t{number}"))
    await bench.clock.sleep_s(0.1)
    await lines.cancel()
    await lines.cancel()
    began = len(bench.started)
    await bench.clock.sleep_s(5)
    assert len(bench.started) == began
