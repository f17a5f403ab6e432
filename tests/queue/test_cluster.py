"""The face of the cluster: who works, how it stands, why a queue does not move, and orders."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from mailrace.errors import ConflictError, MisuseError
from mailrace.events import Events
from mailrace.queue import JobState, LimitRow, Step, Store
from mailrace.queue.alerts import DEFAULT_RULES, AlertKind, AlertRule
from mailrace.queue.cluster import Cluster
from mailrace.queue.commands import Action
from mailrace.queue.orders import Orders
from mailrace.queue.processes import NewProcess, ProcessState, Vitals
from mailrace.queue.queuerules import QueueRules
from mailrace.queue.standing import Health, Slice, Told
from mailrace.queue.supervisor_orders import SupervisorOrders
from mailrace.queue.supervisors import NOTES, SupervisorRow
from mailrace.queue.watching import Watching
from tests.queue.houses import House, add, claim_of, ended, now_ms

_LEASE_S = 60.0


class Process:
    """Somebody who is told, and remembers what."""

    def __init__(self, process_id: int, host: str) -> None:
        self.process_id = process_id
        self.host = host
        self.state = ProcessState.WORKING
        self.did: list[str] = []

    def pause(self) -> None:
        self.did.append("pause")
        self.state = ProcessState.PAUSED

    def resume(self) -> None:
        self.did.append("resume")
        self.state = ProcessState.WORKING

    def drain(self, *, restart: bool = False) -> None:
        self.did.append("restart" if restart else "drain")
        self.state = ProcessState.DRAINING

    def reset_breakers(self) -> None:
        self.did.append("reset")


class Supervising:
    """A supervisor that keeps no processes."""

    def __init__(self, name: str, host: str) -> None:
        self.name = name
        self.host = host
        self.state = "working"
        self.processes = 2
        self.did: list[str] = []

    def stop(self) -> None:
        self.did.append("stop")

    def drain(self) -> None:
        self.did.append("drain")

    def restart(self) -> int:
        self.did.append("restart")
        return self.processes

    def scale(self, processes: int) -> None:
        self.did.append(f"scale {processes}")
        self.processes = processes


class Hall:
    """Processes and supervisors on one store, which look for orders all the time."""

    def __init__(self, store: Store, house: House) -> None:
        self.store = store
        self.house = house
        self.cluster = Cluster(store)
        self._turns: list[Callable[[], Any]] = []

    async def process(
        self, host: str = "mill", supervisor: str = "", *, deaf: bool = False, **fields: Any
    ) -> Process:
        entry: dict[str, Any] = {"queues": ("*",), "concurrency": 20} | fields
        new = NewProcess(journal="j", host=host, supervisor=supervisor, **entry)
        process = Process(await self.store.register(new, _LEASE_S), host)
        if not deaf:
            await self._listen(Orders(self.store, process).turn)
        return process

    async def supervisor(self, name: str, host: str = "mill") -> Supervising:
        found = Supervising(name, host)
        row = SupervisorRow(name=name, host=host, heartbeat_ms=now_ms(self.house))
        await self.store.note(NOTES + name, msgspec.json.encode(row))
        await self._listen(SupervisorOrders(self.store, found).turn)
        return found

    async def _listen(self, turn: Callable[[], Any]) -> None:
        await turn()
        self._turns.append(turn)

    async def vitals(self, process: Process, **fields: Any) -> None:
        renew = self.store.renewer(process.process_id, _LEASE_S)
        assert await asyncio.to_thread(renew, Vitals(**fields))

    async def ordered(self, target: str = "all") -> None:
        """Until somebody gave an order."""
        while True:
            if await self.store.commands([target], 0):
                return
            await asyncio.sleep(0.005)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        async def listen() -> None:
            while True:
                for turn in self._turns:
                    await turn()
                await asyncio.sleep(0.005)

        task = asyncio.create_task(listen())
        try:
            async with asyncio.timeout(20):
                yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
async def hall(store: Store, house: House) -> Hall:
    return Hall(store, house)


def who(told: Told) -> list[str]:
    return sorted(answer.by for answer in told.answers)


# Orders


async def test_an_order_to_all_comes_back_with_the_answer_of_each(hall: Hall) -> None:
    one, two = await hall.process("mill"), await hall.process("weir")
    async with hall.listening():
        told = await hall.cluster.pause()
        assert told.done
        assert told.action is Action.PAUSE
        assert len(told.commands) == 1
        assert who(told) == sorted(f"process:{each.process_id}" for each in (one, two))
        assert {answer.text for answer in told.answers} == {"paused now"}
        assert (await hall.cluster.resume("node:weir")).done
        assert (await hall.cluster.reset_breakers(f"process:{one.process_id}")).done
    assert (one.did, two.did) == (["pause", "reset"], ["pause", "resume"])


async def test_who_does_not_answer_in_time_is_named(hall: Hall) -> None:
    await hall.process()
    deaf = await hall.process(deaf=True)
    async with hall.listening():
        told = await hall.cluster.pause(wait_s=0.3)
    assert told.silent == (f"process:{deaf.process_id}",)
    assert len(told.answers) == 1
    assert not told.done


async def test_the_dead_are_not_waited_for(hall: Hall) -> None:
    await hall.process(deaf=True)
    gone = SupervisorRow(name="gone", host="mill", heartbeat_ms=now_ms(hall.house))
    await hall.store.note(f"{NOTES}gone", msgspec.json.encode(gone))
    hall.house.clock.move_to(_LEASE_S + 1)
    alive = await hall.process()
    async with hall.listening():
        told = await hall.cluster.drain()
    assert (who(told), told.silent) == ([f"process:{alive.process_id}"], ())


async def test_an_order_to_nobody_is_refused(hall: Hall) -> None:
    with pytest.raises(ConflictError, match="no process alive is addressed by 'all'"):
        await hall.cluster.pause()
    await hall.process()
    with pytest.raises(ConflictError, match="no supervisor alive"):
        await hall.cluster.scale(3)
    for target in ("", "node:", "process:x", "process:-1", "everybody", "supervisor"):
        with pytest.raises(MisuseError, match="is nobody who can be told anything"):
            await hall.cluster.pause(target)
    assert await hall.store.commands(["all"], 0) == []


async def test_numbers_are_for_supervisors(hall: Hall) -> None:
    process, one = await hall.process(), await hall.supervisor("one")
    two = await hall.supervisor("two", "weir")
    async with hall.listening():
        told = await hall.cluster.start(2)
        assert who(told) == ["supervisor:one", "supervisor:two"]
        assert told.answers[0].text == "4 processes, 2 processes before"
        assert (await hall.cluster.scale(1, "node:weir")).done
        assert (await hall.cluster.scale(5, "supervisor:one")).done
    assert (one.did, two.did) == (["scale 4", "scale 5"], ["scale 4", "scale 1"])
    assert process.did == []


async def test_an_order_to_end_is_for_both(hall: Hall) -> None:
    own = await hall.process(supervisor="one")
    other = await hall.process()
    one = await hall.supervisor("one")
    async with hall.listening():
        assert len((await hall.cluster.stop("supervisor:one")).answers) == 1
        assert (one.did, own.did, other.did) == (["stop"], [], [])
        told = await hall.cluster.drain()
    assert len(told.answers) == 3
    assert (one.did, own.did, other.did) == (["stop", "drain"], ["drain"], ["drain"])


async def test_who_left_before_an_answer_has_done_as_told(hall: Hall) -> None:
    process = await hall.process(deaf=True)

    async def leave() -> None:
        await hall.ordered()
        await hall.store.retire(process.process_id)

    leaving = asyncio.create_task(leave())
    told = await hall.cluster.stop(wait_s=10)
    await leaving
    assert told.done
    assert told.answers[0].text == "it has left"


async def test_who_left_before_an_answer_answers_the_order_that_it_was_given(hall: Hall) -> None:
    processes = [await hall.process(deaf=True) for _ in range(2)]

    async def leave() -> None:
        for process in processes:
            await hall.ordered(f"process:{process.process_id}")
        for process in processes:
            await hall.store.retire(process.process_id)

    leaving = asyncio.create_task(leave())
    told = await hall.cluster.restart(wait_s=10)
    await leaving
    given = {answer.command_id: answer.by for answer in told.answers}
    assert told.done
    assert [given[command] for command in told.commands] == [
        f"process:{process.process_id}" for process in processes
    ]


async def test_a_restart_is_for_supervisors_and_for_those_who_have_none(hall: Hall) -> None:
    own = await hall.process(supervisor="one")
    orphan = await hall.process(supervisor="gone")
    alone = await hall.process()
    one = await hall.supervisor("one")
    async with hall.listening():
        told = await hall.cluster.restart()
    assert told.done
    assert len(told.commands) == len(told.answers) == 3
    assert (one.did, own.did) == (["restart"], [])
    assert (orphan.did, alone.did) == (["restart"], ["restart"])
    async with hall.listening():
        await hall.cluster.restart(f"process:{own.process_id}")
    assert (one.did, own.did) == (["restart"], ["restart"])


async def test_a_pause_for_a_supervisor_is_for_its_processes(hall: Hall) -> None:
    own, other = await hall.process(supervisor="one"), await hall.process()
    await hall.supervisor("one")
    async with hall.listening():
        assert (await hall.cluster.pause("supervisor:one")).done
    assert (own.did, other.did) == (["pause"], [])


# How it stands


async def test_workers_are_alive_late_or_dead(hall: Hall) -> None:
    process = await hall.process()
    (view,) = await hall.cluster.workers()
    assert (view.health, view.why, view.process.id) == (Health.ALIVE, "", process.process_id)
    await hall.vitals(process, trouble="the far side is away", breakers_open=("mail",))
    (view,) = await hall.cluster.workers()
    assert (view.health, view.why) == (Health.ALIVE, "the far side is away")
    await hall.vitals(process, breakers_open=("call", "mail"))
    (view,) = await hall.cluster.workers()
    assert view.why == "breakers open: call, mail"
    hall.house.clock.move_to(13.0)
    (view,) = await hall.cluster.workers()
    assert (view.health, view.why) == (Health.LATE, "no heartbeat for 13 seconds")
    hall.house.clock.move_to(_LEASE_S + 1)
    (view,) = await hall.cluster.workers()
    assert view.health is Health.DEAD
    assert view.why == "no heartbeat for 61 seconds: its leases have ended"


async def test_supervisors_are_listed(hall: Hall) -> None:
    await hall.supervisor("two")
    await hall.supervisor("one", "weir")
    assert [(row.name, row.host) for row in await hall.cluster.supervisors()] == [
        ("one", "weir"), ("two", "mill"),
    ]  # fmt: skip


async def test_statistics_put_together_what_the_store_tells(hall: Hall) -> None:
    store, clock = hall.store, hall.house.clock
    clock.move_to(60.0 - clock.unix_s() % 60.0)
    begin_ms = now_ms(hall.house)
    process = await hall.process(concurrency=3, queues=("default",))
    await add(store, "a", "b", "c")
    await add(store, "x", queue="other", delay_ms=50_000)
    await store.set_queue(QueueRules(name="other", paused=True, draining=True))
    first, second = await claim_of(store, process.process_id, 2)
    await store.finish(ended([first]))
    await hall.vitals(process, in_hand=1)
    clock.move_to(clock.monotonic_s() + 30.0)
    await hall.vitals(process, in_hand=1)
    clock.move_to(clock.monotonic_s() + 30.0)
    await hall.process(queues=("*",))
    await store.finish(ended([second], Step.RETRY, delay_ms=10_000))
    clock.move_to(clock.monotonic_s() + 2.0)
    seen = await hall.cluster.statistics()
    assert seen.now_ms == begin_ms + 62_000
    assert {state: jobs for state, jobs in seen.counts.items() if jobs} == {
        JobState.COMPLETED: 1, JobState.RETRYABLE: 1, JobState.AVAILABLE: 1, JobState.SCHEDULED: 1,
    }  # fmt: skip
    assert (seen.due, seen.oldest_due_s) == (2, 62.0)
    assert (seen.workers, seen.in_hand, seen.hands) == ({"working": 2}, 1, 23)
    assert seen.series == [
        Slice(start_ms=begin_ms, completed=1, failed=0, retried=0),
        Slice(start_ms=begin_ms + 60_000, completed=0, failed=0, retried=1),
    ]
    default, other = sorted(seen.queues, key=lambda row: row.queue)
    assert (default.queue, default.due, default.per_minute) == ("default", 1, 1)
    assert (default.completed, default.failed, default.retried) == (1, 0, 1)
    assert (default.paused, other.paused, other.draining) == (False, True, True)
    assert (default.workers, other.workers) == (2, 1)
    clock.move_to(clock.monotonic_s() + 40.0)
    seen = await hall.cluster.statistics()
    assert (seen.workers, seen.in_hand, seen.hands) == ({"working": 1, "dead": 1}, 0, 20)
    with pytest.raises(MisuseError, match="hours is 0"):
        await hall.cluster.statistics(0)


async def test_alerts_are_those_that_are_open(hall: Hall) -> None:
    cluster = hall.cluster
    assert await cluster.alerts() == []
    assert await cluster.alert_rules() == DEFAULT_RULES
    rules = (
        AlertRule(kind=AlertKind.BACKLOG, limit=0, for_s=0.0),
        AlertRule(kind=AlertKind.WAITING, limit=0, for_s=100.0),
    )
    await cluster.set_alert_rules(rules)
    assert await cluster.alert_rules() == rules
    await add(hall.store, "a")
    hall.house.clock.move_to(5.0)
    await Watching(hall.store, Events()).turn()
    (alert,) = await cluster.alerts()
    assert (alert.kind, alert.subject) == (AlertKind.BACKLOG, "default")
    with pytest.raises(MisuseError):
        await cluster.set_alert_rules([rules[0], rules[0]])


# Why it does not move


async def test_a_queue_without_jobs_or_workers_says_so(hall: Hall) -> None:
    assert await hall.cluster.why("default") == [
        "no jobs wait in it", "no process alive works on it",
    ]  # fmt: skip
    await hall.process(queues=("other", "more"))
    await add(hall.store, "a")
    assert await hall.cluster.why("default") == [
        "no process alive works on it; those that are work on more, other"
    ]


async def test_a_queue_that_moves_says_so(hall: Hall) -> None:
    await hall.vitals(await hall.process())
    await add(hall.store, "a")
    assert await hall.cluster.why("default") == [
        "nothing holds it back: 1 job due, 1 process at work on it"
    ]


async def test_a_queue_held_back_by_hand_says_so(hall: Hall) -> None:
    await hall.process()
    await add(hall.store, "a")
    await hall.store.set_queue(QueueRules(name="default", paused=True, draining=True))
    paused, draining = await hall.cluster.why("default")
    assert paused.startswith("the queue is paused")
    assert draining.startswith("the queue is draining")


async def test_the_next_job_is_told_where_none_is_due(hall: Hall) -> None:
    await hall.process()
    await add(hall.store, "a", "b", delay_ms=90_000)
    await add(hall.store, "c", delay_ms=60_000, priority=5)
    assert await hall.cluster.why("default") == [
        "none of its 3 waiting jobs is due: the next one is in 60.0 seconds"
    ]


async def test_processes_that_do_not_take_anything_are_told(hall: Hall) -> None:
    one, two = await hall.process(), await hall.process()
    await add(hall.store, "a")
    for process in (one, two):
        await hall.vitals(process, state=ProcessState.PAUSED)
    assert await hall.cluster.why("default") == ["every process that works on it is paused"]
    await hall.vitals(two, in_hand=20, trouble="no connection")
    (sentence,) = await hall.cluster.why("default")
    assert sentence.startswith(
        "every process that works on it has its hands full (20 in 1 process): "
    )
    await hall.vitals(one, in_hand=3, trouble="no connection")
    assert await hall.cluster.why("default") == [
        "every process that works on it has trouble: no connection"
    ]


async def test_a_limit_says_when_the_next_one_goes(hall: Hall) -> None:
    store = hall.store
    await hall.process()
    await add(store, "a", tenant="acme")
    await store.set_queue(QueueRules(name="default", limits=("per:{tenant}", "soon")))
    await store.set_limit(LimitRow(name="soon", rates="2/s"))
    await store.take_slots("soon", None, span_s=0.1)
    (sentence,) = await hall.cluster.why("default")
    assert sentence.startswith("nothing holds it back")
    for name in ("per:acme", "per:other", "unused"):
        await store.set_limit(LimitRow(name=name, rates="1/min", adaptive=True))
        for _ in range(3):
            await store.take_slots(name, None, span_s=0.1)
    (sentence,) = await hall.cluster.why("default")
    assert sentence.startswith("the limit 'per:acme' (1/min) lets the next job go in ")
    await store.slow_limit("per:acme", factor=0.5, floor=0.1, cool_down_s=1.0)
    (sentence,) = await hall.cluster.why("default")
    assert "(1/min, slowed to 50% of it)" in sentence


async def test_concurrency_that_is_used_up_is_told(hall: Hall) -> None:
    process = await hall.process()
    await hall.store.set_queue(QueueRules(name="default", concurrency=1))
    await add(hall.store, "a", "b")
    assert len(await claim_of(hall.store, process.process_id, 5)) == 1
    assert "its concurrency is used up: 1 of 1 run" in await hall.cluster.why("default")


async def test_a_key_that_others_hold_is_told(hall: Hall) -> None:
    process = await hall.process()
    await hall.store.set_queue(QueueRules(name="default", concurrency_per_key=1))
    await add(hall.store, "a", "b", "c", key="k")
    assert len(await claim_of(hall.store, process.process_id, 5)) == 1
    found = await hall.cluster.why("default")
    assert "the key 'k' is used up (1 of 1 run), and holds back 2 jobs" in found


async def test_an_open_breaker_and_a_missing_handler_are_told(hall: Hall) -> None:
    process = await hall.process()
    await hall.process(queues=("other",))
    await add(hall.store, "a", "b")
    jobs = await claim_of(hall.store, process.process_id, 1)
    await hall.store.finish(ended(jobs, Step.SNOOZE, delay_ms=30_000, reason="no handler"))
    await hall.vitals(process, breakers_open=("kind", "none of its"))
    found = await hall.cluster.why("default")
    assert "the breaker of the kind 'kind' is open in 1 of 1 process: its jobs are put off" in found
    assert found[-1].startswith("put off by a worker")
    assert "1 of the 2 waiting jobs looked at" in found[-1]
    assert found[-1].endswith("no process has a handler, or the keys, for 'kind'")
