"""A process that works jobs off and tells what it does; the tests beside it start and kill it.

It is given its `Plan` as JSON. What its handlers do to the world is noted in a file, a line an
effect: that outlives any death of the process. On its standard output it tells a line of JSON for
whatever a test may wait for. SIGTERM drains, a second one stops at once. SIGUSR1 ends what the
plan holds up; SIGTERM does so for calls of the store.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec

from mailrace.errors import UnavailableError
from mailrace.events import Events
from mailrace.jobs import Handlers, JobInfo, Worker, WorkerSettings, open_worker
from mailrace.queue import Attempted
from mailrace.queue.loops import LoopFailed
from mailrace.queue.rescue import Rescued
from mailrace.queue.sessions import LeaseLost


class Plan(msgspec.Struct, kw_only=True):
    """What a process is to do.

    Attributes:
        effects: The file that its handlers write to.
        holds: Where it stands still: `claim` (the store has claimed, nothing is told yet),
            `running` (in the handlers), `finish` (the results are in the journal only).
        deaf: The first session's heartbeats fail.
        pause_s: How long a handler takes.
        told: Whether every effect and every result is told on standard output as well.
    """

    store: str
    effects: str
    journals: str | None = None
    lease_s: float = 30.0
    grace_s: float = 0.2
    concurrency: int = 4
    buffer: int = 50
    holds: tuple[str, ...] = ()
    deaf: bool = False
    pause_s: float = 0.0
    told: bool = False


def tell(event: str, **facts: object) -> None:
    os.write(1, msgspec.json.encode({"event": event, **facts}) + b"\n")


class World:
    """What the handlers change, and where they are held up."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._effects = os.open(plan.effects, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._signalled = asyncio.Event()
        self._continued = asyncio.Event()
        self._deaf = plan.deaf

    def note(self, effect: str, *jobs: JobInfo) -> None:
        """One write: a kill leaves all of it or nothing."""
        at_ns, pid = time.monotonic_ns(), os.getpid()
        lines = [f"{job.id} {job.attempt} {pid} {effect} {at_ns}\n" for job in jobs]
        os.write(self._effects, "".join(lines).encode())
        if self.plan.told:
            tell(effect, jobs=[job.id for job in jobs])

    async def effect(self, *jobs: JobInfo) -> None:
        self.note("begin", *jobs)
        if self.plan.pause_s:
            await asyncio.sleep(self.plan.pause_s)
        if "running" in self.plan.holds:
            await self._continued.wait()
        self.note("end", *jobs)

    async def held_up(self, moment: str, jobs: int) -> None:
        tell(moment, jobs=jobs)
        if moment in self.plan.holds:
            await self._signalled.wait()

    def on_signals(self, worker: Worker) -> None:
        loop = asyncio.get_running_loop()

        def stop() -> None:
            (worker.stop if self._signalled.is_set() else worker.drain)()
            self._signalled.set()
            tell("signalled")

        def go_on() -> None:
            self._signalled.set()
            self._continued.set()

        loop.add_signal_handler(signal.SIGTERM, stop)
        loop.add_signal_handler(signal.SIGUSR1, go_on)

    def watch(self, store: Any) -> None:
        """Has a store tell of its calls, and wait where the plan says so."""
        claim, finish, renewer, wakeups = store.claim, store.finish, store.renewer, store.wakeups

        async def claiming(*values: Any, **choices: Any) -> Any:
            jobs = await claim(*values, **choices)
            if jobs:
                await self.held_up("claim", len(jobs))
            return jobs

        async def finishing(records: Sequence[Any]) -> int:
            await self.held_up("finish", len(records))
            refused: int = await finish(records)
            tell("finished", jobs=len(records), refused=refused)
            return refused

        def renewing(process_id: int, lease_s: float) -> Callable[[Any], bool]:
            deaf, self._deaf = self._deaf, False
            return _refused if deaf else renewer(process_id, lease_s)

        async def waking(*values: Any) -> AsyncIterator[None]:
            async for _ in wakeups(*values):
                tell("woken")
                yield

        store.claim, store.finish, store.renewer = claiming, finishing, renewing
        store.wakeups = waking


def _refused(_vitals: object) -> bool:
    raise UnavailableError("no heartbeat goes out")


def handlers_of(world: World) -> Handlers:
    handlers = Handlers()

    @handlers.register("quick")
    async def quick(_: Any, job: JobInfo) -> None:
        world.note("begin", job)
        world.note("end", job)

    @handlers.register("slow")
    async def slow(_: Any, job: JobInfo) -> None:
        await world.effect(job)

    @handlers.register("once", at_most_once=True)
    async def once(_: Any, job: JobInfo) -> None:
        await world.effect(job)

    @handlers.register("chunk", chunk=3)
    async def chunk(payloads: list[Any], jobs: list[JobInfo]) -> list[None]:
        await world.effect(*jobs)
        return [None] * len(payloads)

    @handlers.register("deadly")
    async def deadly(_: Any, job: JobInfo) -> None:
        world.note("begin", job)
        os.kill(os.getpid(), signal.SIGKILL)

    return handlers


def told_events(plan: Plan) -> Events:
    events = Events()
    if plan.told:  # by then it is in the journal
        events.follow(Attempted, lambda attempted: tell("attempted", jobs=[attempted.job.id]))
    events.follow(LeaseLost, lambda lost: tell("lease lost", jobs=lost.jobs))
    events.follow(Rescued, lambda rescued: tell("rescued", jobs=rescued.jobs))
    events.follow(
        LoopFailed, lambda failed: tell("loop failed", name=failed.name, why=str(failed.error))
    )
    return events


async def main(plan: Plan) -> None:
    world = World(plan)
    settings = WorkerSettings(
        concurrency=plan.concurrency, buffer=plan.buffer, grace_s=plan.grace_s, lease_s=plan.lease_s
    )
    async with open_worker(
        plan.store,
        handlers_of(world),
        settings=settings,
        journals=plan.journals,
        events=told_events(plan),
    ) as worker:
        world.watch(worker._store)
        world.on_signals(worker)
        tell("working")
        await worker.run()
    tell("ended")


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Plan)))
