"""A worker's life: it claims, drains, pauses, obeys, and gets over what happens to its store."""

import asyncio
import itertools
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import pytest

from mailrace.events import Events
from mailrace.queue import ClaimedJob, JobState, LeaseLost, Rescued
from mailrace.queue.answers import SlowDown, Snooze
from mailrace.queue.commands import Action, NewCommand
from mailrace.queue.flows import Want
from mailrace.queue.jobrows import JobFilter, JobRow
from mailrace.queue.journal import Journal, boot_id
from mailrace.queue.kinds import Handlers, JobInfo
from mailrace.queue.loops import LoopFailed
from mailrace.queue.processes import ProcessState
from mailrace.queue.session import LEASE_S
from tests.queue.houses import add, claim_of, enter, queue_counts
from tests.queue.world import World

WAIT_S = 20.0
A_LONG_TIME = 10_000_000


class Desk:
    """A handler that counts, and waits where it is told to.

    Attributes:
        begun: The payloads, in the order in which attempts began.
        done: Those of attempts that ended well.
        cancelled: Those of attempts that were cut off.
        open: Attempts go on only while this is set.
    """

    def __init__(self, **choices: Any) -> None:
        self.begun: list[str] = []
        self.done: list[str] = []
        self.cancelled: list[str] = []
        self.at_once = self.most_at_once = 0
        self.open = asyncio.Event()
        self.open.set()
        self.takes_s = 0.0
        self.handlers = Handlers()
        self.handlers.add("kind", self, **choices)
        self.world: World | None = None

    async def __call__(self, payload: dict[str, str]) -> None:
        name = payload["to"]
        self.begun.append(name)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.world is not None and self.takes_s:
                await self.world.clock.sleep_s(self.takes_s)
            await self.open.wait()
            self.done.append(name)
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        finally:
            self.at_once -= 1


def names(jobs: int) -> list[str]:
    return [f"j{number:03}" for number in range(jobs)]


async def rows(world: World, **where: Any) -> list[JobRow]:
    return await world.store.find(JobFilter(**where), limit=1000)


async def told(world: World, action: Action, target: str = "all") -> list[str]:
    """Gives a command, lets two seconds pass, and returns what was answered."""
    number = await world.store.command(NewCommand(action=action, target=target))
    await world.clock.sleep_s(2)
    return [answer.text for answer in await world.store.answers(number) if answer.done]


# The ordinary life


async def test_a_worker_does_what_is_there_and_what_comes(world: World) -> None:
    desk = Desk()
    desk.world, desk.takes_s = world, 0.01
    await add(world.store, *names(300))
    async with world.working(desk.handlers, concurrency=10) as worker:
        await world.until_counts({JobState.COMPLETED: 300})
        await add(world.store, "late", "later", delay_ms=3000)
        await world.until_counts({JobState.COMPLETED: 302})
        assert worker.state is ProcessState.WORKING
        assert worker.vitals().completed == 302
        assert world.clock.monotonic_s() < 5
    assert Counter(desk.begun) == dict.fromkeys([*names(300), "late", "later"], 1)
    assert desk.most_at_once == 10
    assert worker.tally.in_hand == 0
    await world.assert_nothing_is_left()


async def test_a_job_that_comes_while_it_rests_is_begun_soon(world: World) -> None:
    desk = Desk()
    async with world.working(desk.handlers):
        await world.clock.sleep_s(10)
        began_s = world.clock.monotonic_s()
        await add(world.store, "new")
        await world.until(lambda: desk.done == ["new"])
        assert world.clock.monotonic_s() - began_s < 0.2


async def test_only_its_own_queues_are_worked_off(world: World) -> None:
    desk = Desk()
    await add(world.store, "mine", queue="mine")
    await add(world.store, "other", queue="other")
    async with world.working(desk.handlers, queues={"mine": 1.0}):
        await world.until_counts({JobState.COMPLETED: 1}, "mine")
        await world.clock.sleep_s(5)
    assert desk.begun == ["mine"]
    assert await queue_counts(world.store, "other") == {JobState.AVAILABLE: 1}


async def test_an_ordinary_function_works_in_a_thread(world: World) -> None:
    handlers, threads = Handlers(), set[str]()

    @handlers.register("kind")
    def handler(payload: dict[str, str]) -> int:
        threads.add(threading.current_thread().name)
        return len(payload["to"])

    await add(world.store, *names(20))
    async with world.working(handlers, concurrency=3):
        await world.until_counts({JobState.COMPLETED: 20})
    assert threading.current_thread().name not in threads
    for thread in threading.enumerate():
        if thread.name in threads:
            thread.join(WAIT_S)
            assert not thread.is_alive()
    await world.assert_nothing_is_left()


# Its end


async def test_drain_lets_attempts_end_and_hands_back_the_rest(world: World) -> None:
    desk = Desk()
    desk.open.clear()
    await add(world.store, *names(200))
    worker = world.worker(desk.handlers, concurrency=4, buffer=100)
    running = asyncio.create_task(worker.run())
    await world.until(lambda: desk.at_once == 4 and worker.vitals().held > 0)
    worker.drain()
    worker.drain(restart=True)
    await world.clock.sleep_s(5)
    assert worker.state is ProcessState.DRAINING
    assert await queue_counts(world.store) == {JobState.RUNNING: 4, JobState.AVAILABLE: 196}
    desk.open.set()
    await asyncio.wait_for(running, WAIT_S)
    assert worker.restart
    assert len(desk.begun) == 4
    assert await queue_counts(world.store) == {JobState.COMPLETED: 4, JobState.AVAILABLE: 196}
    assert {row.attempt for row in await rows(world)} == {0, 1}
    assert {row.attempt for row in await rows(world, states=(JobState.AVAILABLE,))} == {0}
    await world.assert_nothing_is_left()


@pytest.mark.parametrize("once", [False, True])
async def test_attempts_that_outlast_the_grace_are_cut_off(world: World, *, once: bool) -> None:
    desk = Desk(at_most_once=once)
    desk.open.clear()
    await add(world.store, *names(10))
    worker = world.worker(desk.handlers, concurrency=4, grace_s=8)
    running = asyncio.create_task(worker.run())
    await world.until(lambda: desk.at_once == 4)
    worker.drain()
    drained_s = world.clock.monotonic_s()
    await asyncio.wait_for(running, WAIT_S)
    assert world.clock.monotonic_s() - drained_s == pytest.approx(8, abs=1)
    assert len(desk.cancelled) == 4
    expected = {JobState.AVAILABLE: 10}
    if once:
        expected = {JobState.UNCERTAIN: 4, JobState.AVAILABLE: 6}
    assert await queue_counts(world.store) == expected
    assert {row.attempt for row in await rows(world, states=(JobState.AVAILABLE,))} == {0}
    await world.assert_nothing_is_left()


@pytest.mark.parametrize("draining", [False, True])
async def test_stop_ends_attempts_now(world: World, *, draining: bool) -> None:
    """What may be repeated goes back, the rest becomes uncertain; also in the middle of a drain."""
    repeatable, once = Desk(), Desk()
    for desk in (repeatable, once):
        desk.open.clear()
    repeatable.handlers.add("pay", once, at_most_once=True)
    await add(world.store, *names(2))
    await add(world.store, *names(2), kind="pay")
    worker = world.worker(repeatable.handlers, concurrency=4)
    running = asyncio.create_task(worker.run())
    await world.until(lambda: repeatable.at_once + once.at_once == 4)
    if draining:
        worker.drain()
        await world.clock.sleep_s(1)
    stopped_s = world.clock.monotonic_s()
    worker.stop()
    await asyncio.wait_for(running, WAIT_S)
    assert world.clock.monotonic_s() - stopped_s < 1
    assert await queue_counts(world.store) == {JobState.AVAILABLE: 2, JobState.UNCERTAIN: 2}
    await world.assert_nothing_is_left()


async def test_a_worker_that_is_cancelled_leaves_its_books_in_order(world: World) -> None:
    desk = Desk()
    desk.open.clear()
    await add(world.store, *names(50))
    running = asyncio.create_task(world.worker(desk.handlers, concurrency=5).run())
    await world.until(lambda: desk.at_once == 5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await queue_counts(world.store) == {JobState.AVAILABLE: 50}
    await world.assert_nothing_is_left()


async def test_told_to_drain_before_it_began_it_does_nothing(world: World) -> None:
    desk = Desk()
    await add(world.store, *names(5))
    worker = world.worker(desk.handlers)
    worker.drain()
    await asyncio.wait_for(worker.run(), WAIT_S)
    assert await queue_counts(world.store) == {JobState.AVAILABLE: 5}
    await world.assert_nothing_is_left()


async def test_jobs_that_are_claimed_while_it_begins_to_drain_are_handed_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk()
    await add(world.store, *names(50))
    claim = world.store.claim
    worker = world.worker(desk.handlers)

    async def slow(
        process_id: int, wants: Sequence[Want], *, once: Sequence[str] = ()
    ) -> list[ClaimedJob]:
        jobs = await claim(process_id, wants, once=once)
        worker.drain()
        await world.clock.sleep_s(0.5)
        return jobs

    monkeypatch.setattr(world.store, "claim", slow)
    await asyncio.wait_for(worker.run(), WAIT_S)
    assert desk.begun == []
    assert await queue_counts(world.store) == {JobState.AVAILABLE: 50}
    await world.assert_nothing_is_left()


# Pausing


async def test_a_pause_begins_nothing_hands_back_and_lets_attempts_end(world: World) -> None:
    desk, other = Desk(), Desk()
    desk.open.clear()
    await add(world.store, *names(60))
    async with world.working(desk.handlers, concurrency=2) as worker:
        await world.until(lambda: desk.at_once == 2 and worker.vitals().held > 0)
        worker.pause()
        worker.pause()
        await world.clock.sleep_s(2)
        vitals = worker.vitals()
        assert (vitals.state, vitals.held) == (ProcessState.PAUSED, 0)
        assert await queue_counts(world.store) == {JobState.RUNNING: 2, JobState.AVAILABLE: 58}
        desk.open.set()
        await world.clock.sleep_s(5)
        assert len(desk.done) == len(desk.begun) == 2
        async with world.working(other.handlers, store=world.house.open()):
            await world.until_counts({JobState.COMPLETED: 60})
        await add(world.store, "more")
        await world.clock.sleep_s(5)
        assert "more" not in desk.begun
        worker.resume()
        await world.until_counts({JobState.COMPLETED: 61})
        assert worker.state is ProcessState.WORKING
    assert desk.begun[-1] == "more"
    await world.assert_nothing_is_left()


async def test_jobs_that_are_claimed_while_it_begins_to_pause_are_handed_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk()
    await add(world.store, *names(50))
    claim = world.store.claim

    async def slow(
        process_id: int, wants: Sequence[Want], *, once: Sequence[str] = ()
    ) -> list[ClaimedJob]:
        jobs = await claim(process_id, wants, once=once)
        worker.pause()
        await world.clock.sleep_s(0.5)
        return jobs

    monkeypatch.setattr(world.store, "claim", slow)
    async with world.working(desk.handlers) as worker:
        await world.clock.sleep_s(3)
        assert desk.begun == []
        assert await queue_counts(world.store) == {JobState.AVAILABLE: 50}


# Orders


async def test_commands_over_the_store_are_carried_out_and_answered(world: World) -> None:
    desk = Desk()
    worker = world.worker(desk.handlers)
    running = asyncio.create_task(worker.run())
    await world.clock.sleep_s(1)
    target = f"process:{worker.process_id}"
    assert await told(world, Action.PAUSE, target) == ["paused now"]
    await add(world.store, "one")
    await world.clock.sleep_s(2)
    assert desk.begun == []
    assert await told(world, Action.RESUME, f"node:{worker.host}") == ["working now"]
    assert desk.begun == ["one"]
    assert await told(world, Action.RESET_BREAKERS) == ["breakers reset"]
    assert await told(world, Action.PAUSE, "process:999") == []
    assert await told(world, Action.SCALE) == []
    assert await told(world, Action.RESTART) == ["draining now"]
    await asyncio.wait_for(running, WAIT_S)
    assert worker.restart
    await world.assert_nothing_is_left()


async def test_an_order_from_before_it_came_is_not_meant_for_it(world: World) -> None:
    await world.store.command(NewCommand(action=Action.DRAIN))
    world.clock.move_to(1)
    desk = Desk()
    async with world.working(desk.handlers) as worker:
        await world.clock.sleep_s(3)
        assert worker.state is ProcessState.WORKING


async def test_an_order_to_a_process_that_has_just_come_is_carried_out(world: World) -> None:
    desk = Desk()
    worker = world.worker(desk.handlers)
    running = asyncio.create_task(worker.run())
    while not (processes := await world.store.processes()):
        await world.clock.sleep_s(0.01)
    target = f"process:{processes[0].id}"
    await world.store.command(NewCommand(action=Action.DRAIN, target=target))
    await asyncio.wait_for(running, WAIT_S)
    assert world.clock.monotonic_s() < 5


async def test_a_job_that_is_cancelled_while_it_runs_is_cut_off(world: World) -> None:
    desk = Desk()
    desk.open.clear()
    first, second, waiting = await add(world.store, "first", "second", "waiting")
    async with world.working(desk.handlers, concurrency=2, buffer=2):
        await world.until(lambda: desk.at_once == 2)
        assert await world.store.cancel(JobFilter(ids=(first, waiting))) == 2
        await world.until(lambda: desk.cancelled == ["first"], 2)
        desk.open.set()
        await world.until_counts({JobState.CANCELLED: 2, JobState.COMPLETED: 1})
    assert desk.begun == ["first", "second"]
    states = {row.id: row.state for row in await rows(world)}
    assert states[second] is JobState.COMPLETED
    await world.assert_nothing_is_left()


async def test_one_that_is_cancelled_while_it_is_held_is_not_begun(world: World) -> None:
    desk = Desk()
    desk.open.clear()
    jobs = await add(world.store, *names(10))
    async with world.working(desk.handlers, concurrency=1) as worker:
        await world.until(lambda: worker.vitals().held > 0)
        await world.store.cancel(JobFilter(ids=tuple(jobs[1:])))
        await world.clock.sleep_s(1.5)
        desk.open.set()
        await world.until_counts({JobState.CANCELLED: 9, JobState.COMPLETED: 1})
    assert desk.begun == ["j000"]


async def test_one_that_is_done_at_most_once_goes_on_to_its_end(world: World) -> None:
    desk = Desk(at_most_once=True)
    desk.open.clear()
    (job,) = await add(world.store, "paid")
    async with world.working(desk.handlers):
        await world.until(lambda: desk.at_once == 1)
        assert await world.store.cancel(JobFilter(ids=(job,))) == 1
        await world.clock.sleep_s(3)
        assert desk.cancelled == []
        desk.open.set()
        await world.until_counts({JobState.COMPLETED: 1})


# Deaths and lost leases


async def test_what_a_dead_process_held_is_done_by_another(world: World) -> None:
    desk = Desk()
    journal = Journal.create(world.journals / "dead.journal", boot_id())
    process_id = await enter(world.store, "dead.journal", LEASE_S)
    await add(world.store, *names(5))
    jobs = await claim_of(world.store, process_id, 5)
    journal.started(jobs[0].id, jobs[0].lease, once=False)
    journal.started(jobs[1].id, jobs[1].lease, once=True)
    rescued, events = list[Rescued](), Events()
    events.follow(Rescued, rescued.append)
    async with world.working(desk.handlers, events=events):
        await world.clock.sleep_s(10)
        assert desk.begun == []  # it is alive: it holds its journal
        journal.close(keep=True)
        await world.until_counts({JobState.COMPLETED: 4, JobState.UNCERTAIN: 1})
        assert world.clock.monotonic_s() < 10 + LEASE_S / 5 + 1
    assert rescued == [Rescued(jobs=3)]
    assert [row.deaths for row in reversed(await rows(world))] == [1, 0, 0, 0, 0]
    assert {row.attempt for row in await rows(world, states=(JobState.COMPLETED,))} == {1}
    await world.assert_nothing_is_left()


async def test_a_worker_that_has_lost_its_leases_goes_on_under_new_ones(world: World) -> None:
    desk, lost, events = Desk(), list[LeaseLost](), Events()
    events.follow(LeaseLost, lost.append)
    desk.open.clear()
    await add(world.store, *names(30))
    async with world.working(desk.handlers, concurrency=3, events=events) as worker:
        await world.until(lambda: desk.at_once == 3)
        first = worker.process_id
        for process in await world.store.processes():
            assert await world.store.rescue(process, [], known=True) is not None
        session = worker._workers.session
        assert session is not None
        session.expire()  # what the thread that renews does when it finds out
        await world.clock.sleep_s(2)
        desk.open.set()
        await world.until_counts({JobState.COMPLETED: 30})
        assert worker.process_id != first
    assert len(lost) == 1
    assert Counter(desk.done) == dict.fromkeys(names(30), 1)
    assert len(desk.cancelled) == 3  # somebody else might have made these attempts by then
    assert {row.deaths for row in await rows(world)} == {0}
    await world.assert_nothing_is_left()


# A store that is out of reach


@pytest.mark.parametrize("away_s", [3, 2 * LEASE_S])
async def test_a_store_that_is_out_of_reach_for_a_while_is_no_end(
    world: World, away_s: float
) -> None:
    desk, failed, events = Desk(), list[LoopFailed](), Events()
    events.follow(LoopFailed, failed.append)
    desk.world, desk.takes_s = world, 0.2
    await add(world.store, *names(200))
    async with world.working(desk.handlers, concurrency=5, events=events, buffer=40) as worker:
        await world.until(lambda: len(desk.done) > 20)
        world.store.down = True
        await world.clock.sleep_s(away_s)
        assert worker.vitals().stale_s > min(away_s, LEASE_S) / 2
        world.store.down = False
        await world.until_counts({JobState.COMPLETED: 200})
        # Nothing of what was acknowledged runs again.
        assert Counter(desk.done) == dict.fromkeys(names(200), 1)
        await world.clock.sleep_s(10)
        assert worker.vitals().stale_s < 10
    assert {one.name for one in failed} >= {"rules", "orders", "upkeep"}
    await world.assert_nothing_is_left()


async def test_a_store_that_is_out_of_reach_at_the_start_is_waited_for(world: World) -> None:
    desk = Desk()
    await add(world.store, *names(3))
    world.store.down = True
    async with world.working(desk.handlers) as worker:
        await world.clock.sleep_s(60)
        assert worker.state is ProcessState.STARTING
        world.store.down = False
        await world.until_counts({JobState.COMPLETED: 3})
    await world.assert_nothing_is_left()


async def test_a_far_side_that_says_slow_down_while_the_store_is_away_disturbs_nothing(
    world: World,
) -> None:
    handlers, unheard = Handlers(), list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))

    @handlers.register("kind")
    async def handler(payload: Any) -> SlowDown:
        world.store.down = True
        return SlowDown(100)

    queue = world.queue()
    await queue.configure("default", limits=("gone",))
    await queue.set_limit("gone", "10/s", adaptive=True)
    await add(world.store, "one")
    async with world.working(handlers):
        await world.until(lambda: world.store.down)
        await world.clock.sleep_s(2)
        world.store.down = False
        await world.clock.sleep_s(2)
    assert unheard == []


# Fairness in the large


async def test_queues_share_a_worker_by_weight(world: World) -> None:
    desk = Desk()
    desk.world, desk.takes_s = world, 0.01
    for queue in ("heavy", "light"):
        await add(world.store, *(f"{queue}-{name}" for name in names(600)), queue=queue)
    async with world.working(desk.handlers, queues={"heavy": 3, "light": 1}, concurrency=5):
        await world.until(lambda: len(desk.done) >= 400)
    heavy = sum(name.startswith("heavy") for name in desk.done[:400])
    assert 270 <= heavy <= 330


async def test_a_tenant_with_little_is_not_kept_waiting_by_one_with_much(world: World) -> None:
    desk = Desk()
    desk.world, desk.takes_s = world, 0.05
    await add(world.store, *names(1000), tenant="much")
    async with world.working(desk.handlers, concurrency=2, buffer=20):
        await world.until(lambda: len(desk.done) >= 50)
        came = len(desk.begun)
        await add(world.store, "a", "b", "c", tenant="little")
        await world.until(lambda: {"a", "b", "c"} <= set(desk.done))
        assert len(desk.begun) - came < 50


async def test_the_higher_priority_goes_first(world: World) -> None:
    desk = Desk()
    desk.world, desk.takes_s = world, 0.05
    await add(world.store, *(f"low-{name}" for name in names(200)), priority=-5)
    async with world.working(desk.handlers, concurrency=1, buffer=4):
        await world.until(lambda: len(desk.done) >= 10)
        await add(world.store, *(f"high-{name}" for name in names(40)), priority=5)
        await world.until(lambda: "high-j039" in desk.done)
    last = desk.done.index("high-j039")
    assert sum(name.startswith("low") for name in desk.done[:last]) < 10 + 12


async def test_a_low_priority_that_waits_is_served_beside_ones_that_keep_coming(
    world: World,
) -> None:
    desk = Desk()
    desk.world, desk.takes_s = world, 0.1
    await world.queue().configure("default", ageing_s=1.0)
    await add(world.store, "low", priority=-3)
    async with world.working(desk.handlers, concurrency=1, buffer=1):
        for number in range(15):
            await add(world.store, *(f"{number}-{name}" for name in names(20)), priority=3)
            await world.clock.sleep_s(1)
            if "low" in desk.done:
                break
        assert "low" in desk.done
        assert world.clock.monotonic_s() > 5


# Rules of queues


async def test_a_job_whose_time_is_over_is_not_begun(world: World) -> None:
    """Whether it is held by a worker, or waits in the store."""
    desk = Desk()
    desk.open.clear()
    await add(world.store, "first")
    async with world.working(desk.handlers, concurrency=1) as worker:
        await world.until(lambda: desk.at_once == 1)
        await add(world.store, *names(5), expires_in_ms=2000)
        await world.until(lambda: 0 < worker.vitals().held < 5)
        await add(world.store, "far", delay_ms=A_LONG_TIME, expires_in_ms=2000)
        await world.clock.sleep_s(3)
        desk.open.set()
        await world.until_counts({JobState.COMPLETED: 1, JobState.EXPIRED: 6})
    assert desk.begun == ["first"]
    await world.assert_nothing_is_left()


async def test_concurrency_holds_over_all_workers(world: World) -> None:
    handlers, at_once, most = Handlers(), Counter[str](), defaultdict[str, int](int)

    @handlers.register("kind")
    async def handler(payload: Any, info: JobInfo) -> None:
        for place in ("all", info.key or ""):
            at_once[place] += 1
            most[place] = max(most[place], at_once[place])
        await world.clock.sleep_s(0.05)
        for place in ("all", info.key or ""):
            at_once[place] -= 1

    await world.queue().configure("default", concurrency=5, concurrency_per_key=2)
    for key in ("a", "b", "c", "d"):
        await add(world.store, *names(20), key=key)
    workers = [world.worker(handlers, store=world.house.open(), concurrency=8) for _ in range(3)]
    async with world.running(*workers):
        await world.until_counts({JobState.COMPLETED: 80})
    assert most == {"all": 5} | dict.fromkeys("abcd", 2)
    assert world.clock.monotonic_s() < 10
    await world.assert_nothing_is_left()


async def test_a_queue_that_is_paused_holds_up_no_other(world: World) -> None:
    desk = Desk()
    await add(world.store, *(f"held-{name}" for name in names(500)), queue="held")
    await add(world.store, *names(100), queue="free")
    await world.queue().pause("held")
    async with world.working(desk.handlers, queues={"held": 1000, "free": 1}):
        await world.until_counts({JobState.COMPLETED: 100}, "free")
        assert world.clock.monotonic_s() < 2
        assert set(desk.begun) == set(names(100))
        await world.queue().resume("held")
        await world.until_counts({JobState.COMPLETED: 500}, "held")


async def test_what_a_handler_puts_off_comes_back_and_costs_no_attempt(world: World) -> None:
    handlers, at_s = Handlers(), list[float]()

    @handlers.register("kind", retry="none")
    async def handler(payload: Any, info: JobInfo) -> Snooze | None:
        at_s.append(world.clock.monotonic_s())
        assert info.attempt == 1
        return Snooze(2) if len(at_s) < 4 else None

    await add(world.store, "one", attempts=1)
    async with world.working(handlers):
        await world.until_counts({JobState.COMPLETED: 1})
    (row,) = await rows(world)
    assert (row.attempt, row.snoozes) == (1, 3)
    waits_s = [later - sooner for sooner, later in itertools.pairwise(at_s)]
    assert waits_s == pytest.approx([2, 2, 2], abs=0.3)


# Chunks


async def test_chunks_gather_what_is_there(world: World) -> None:
    handlers, sizes, seen = Handlers(), list[int](), list[str]()

    @handlers.register("kind", chunk=25)
    async def handler(payloads: list[dict[str, str]]) -> list[None]:
        sizes.append(len(payloads))
        seen.extend(payload["to"] for payload in payloads)
        await world.clock.sleep_s(0.05)
        return [None] * len(payloads)

    others = Desk()
    handlers.add("single", others)
    for part in range(4):
        await add(world.store, *names(100)[part::4])
        await add(world.store, *names(100)[part::4], kind="single")
    async with world.working(handlers, concurrency=2):
        await world.until_counts({JobState.COMPLETED: 200})
    assert sorted(seen) == sorted(others.done) == names(100)
    assert max(sizes) == 25
    assert len(sizes) <= 10
    await world.assert_nothing_is_left()


async def test_a_chunk_that_exits_ends_its_own_jobs_only(world: World) -> None:
    handlers, others = Handlers(), Desk()

    @handlers.register("bad", chunk=5, retry="none")
    async def handler(payloads: list[Any]) -> list[None]:
        raise SystemExit(3)

    handlers.add("kind", others)
    await add(world.store, *names(10), kind="bad")
    async with world.working(handlers, concurrency=2) as worker:
        await add(world.store, *names(10))
        await world.until_counts({JobState.COMPLETED: 10, JobState.FAILED: 10})
        assert worker.state is ProcessState.WORKING
    await world.assert_nothing_is_left()


async def test_a_chunk_that_is_cut_off_goes_back_whole(world: World) -> None:
    handlers, begun = Handlers(), asyncio.Event()

    @handlers.register("kind", chunk=5)
    async def handler(payloads: list[Any]) -> list[None]:
        begun.set()
        await asyncio.Event().wait()
        return []

    await add(world.store, *names(5))
    worker = world.worker(handlers, concurrency=1)
    running = asyncio.create_task(worker.run())
    await begun.wait()
    worker.stop()
    await asyncio.wait_for(running, WAIT_S)
    assert await queue_counts(world.store) == {JobState.AVAILABLE: 5}
    assert {row.attempt for row in await rows(world)} == {0}
    await world.assert_nothing_is_left()


# Upkeep


async def test_the_chores_are_done_by_whoever_is_there(world: World) -> None:
    desk = Desk()
    queue = world.queue(desk.handlers)
    async with queue.batch("set", then=queue.job("kind", {"to": "then"})) as batch:
        await queue.enqueue_many("kind", [{"to": "one"}, {"to": "two"}], batch_id=batch.id)
    await queue.schedule("tick", "@every 10s", queue.job("kind", {"to": "tick"}))
    workers = [world.worker(desk.handlers, store=world.house.open()) for _ in range(3)]
    async with world.running(*workers):
        await world.until(lambda: "then" in desk.done, 5)
        await world.clock.sleep_s(22)
    assert Counter(desk.done) == {"one": 1, "two": 1, "then": 1, "tick": 2}


async def test_a_chore_that_fails_keeps_nobody_from_the_others(world: World) -> None:
    """A schedule whose queue takes nothing in any more, for one."""
    desk = Desk()
    queue = world.queue(desk.handlers)
    await queue.schedule("broken", "@every 1s", queue.job("kind", {"to": "x"}, queue="drained"))
    await queue.schedule("tick", "@every 1s", queue.job("kind", {"to": "tick"}))
    await queue.drain("drained")
    await add(world.store, "late", delay_ms=A_LONG_TIME, expires_in_ms=1000)
    async with world.working(desk.handlers):
        await world.clock.sleep_s(12)
        assert JobState.EXPIRED in await queue_counts(world.store)
        assert desk.done.count("tick") >= 8


async def test_a_worker_without_upkeep_leaves_the_chores_to_others(world: World) -> None:
    desk = Desk()
    await add(world.store, "late", delay_ms=A_LONG_TIME, expires_in_ms=1000)
    async with world.working(desk.handlers, upkeep=False):
        await world.clock.sleep_s(15)
    assert await queue_counts(world.store) == {JobState.SCHEDULED: 1}


# What others may know of it


async def test_its_vitals_tell_what_it_does(world: World) -> None:
    desk = Desk()
    desk.open.clear()
    await add(world.store, *names(10))
    worker = world.worker(desk.handlers, concurrency=2, buffer=5)
    assert worker.vitals().state is ProcessState.STARTING
    async with world.running(worker):
        await world.until(lambda: desk.at_once == 2)
        vitals = worker.vitals()
        assert (vitals.in_hand, vitals.completed, vitals.failed) == (2, 0, 0)
        assert vitals.held > 0
        assert vitals.stale_s < 2
        assert set(worker.loop_ages_s()) == {
            "claim", "rescue", "rules", "orders", "upkeep",
        }  # fmt: skip
        desk.open.set()
        await world.until_counts({JobState.COMPLETED: 10})
        (row,) = await world.store.processes()
        assert (row.concurrency, row.queues) == (2, ("*",))
        assert row.version


async def test_a_loop_that_stands_still_shows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, stuck = Desk(), asyncio.Event()

    async def stands_still() -> list[Any]:
        await stuck.wait()
        return []

    monkeypatch.setattr(world.store, "processes", stands_still)
    async with world.working(desk.handlers) as worker:
        await world.clock.sleep_s(20)
        assert worker.vitals().stale_s == pytest.approx(20, abs=1)
        assert max(worker.loop_ages_s(), key=worker.loop_ages_s().__getitem__) == "rescue"
        stuck.set()


async def test_an_idle_worker_is_not_stale(world: World) -> None:
    desk = Desk()
    async with world.working(desk.handlers) as worker:
        for _ in range(20):
            await world.clock.sleep_s(1)
            assert worker.vitals().stale_s <= 5.5, worker.loop_ages_s()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"queues": {}}, "queues is empty"),
        ({"queues": {"q": 0}}, "weight of queue 'q' is 0"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"buffer": 0}, "buffer is 0"),
        ({"grace_s": -1}, "grace_s is -1"),
        ({"grace_s": float("nan")}, "grace_s is nan"),
        ({"keep_s": {JobState.RUNNING: 5}}, "keep_s has running"),
    ],
)
async def test_settings_that_cannot_be_are_refused(
    world: World, settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(Exception, match=problem):
        world.worker(Handlers(), **settings)
