"""The worker behind `mailrace worker`: one process, from its first line to its last."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from mailrace.cli.duties import duties
from mailrace.cli.exits import DONE, REPLACE, STOPPED
from mailrace.cli.logs import Say, log_work
from mailrace.cli.metrics import Address, serving
from mailrace.cli.notices import Sparing, noting
from mailrace.cli.opening import check_journals
from mailrace.cli.together import Together
from mailrace.clock import Clock, SystemClock
from mailrace.events import Events
from mailrace.jobs import Handlers, Sealer, Worker
from mailrace.queue.memory import MIB, MemoryUsedUp
from mailrace.queue.parent import parent_gone
from mailrace.settings import Settings
from mailrace.wiring import Chance, connections_of, describe_store, event_loop, open_store

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
# At the very end: handlers that do not let themselves be cancelled have so long.
_PATIENCE_S: Final = 5.0
# A thread that wants to go on, the store's or a handler's, waits so long for the event loop and not
# 5 ms: what they do is short, and a transaction needs many turns (benchmarks/bench_queue.py).
_SWITCH_S: Final = 0.0005


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a process is to do.

    Attributes:
        supervisor: The name of the supervisor that started it; empty for none.
        lifeline: The file that ends when that supervisor is gone.
        metrics: Where its metrics are served, if anywhere.
    """

    handlers: Handlers
    settings: Settings
    say: Say
    supervisor: str = ""
    lifeline: int | None = None
    metrics: Address | None = None


def work(order: Work) -> int:
    """Works until a signal or an order ends it; returns the exit code."""
    sys.setswitchinterval(_SWITCH_S)
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        return runner.run(_work(order))


async def _work(order: Work) -> int:
    settings = order.settings
    clock, chance = SystemClock(), Chance()
    events = Events() if settings.verbose else Sparing()
    log_work(order.say, events, attempts=settings.verbose)
    events.follow(MemoryUsedUp, lambda event: _log_memory(order.say, event))
    stored = await open_store(settings.store, journals=settings.journals, redis=settings.redis)
    try:
        check_journals(stored.journals)
        worker = Worker(
            stored.store,
            order.handlers,
            place=stored.place,
            clock=clock,
            names=chance.name,
            rng=chance.rng,
            events=events,
            settings=duties(settings),
            sealer=Sealer.given(settings.keys, sealed_only=settings.sealed_only),
            supervisor=order.supervisor,
        )
        if isinstance(events, Sparing):
            events.count_by(worker.tally)
        began_s = clock.monotonic_s()
        async with (
            serving(order.metrics, stored.store, order.say),
            _signals(worker, order, clock),
            _orphaned(worker, order),
            noting(
                order.say,
                events,
                worker,
                stored.store,
                ends=not settings.verbose,
                kinds={kind.name for kind in order.handlers},
            ),
        ):
            _introduce(order, connections_of(stored.store))
            await worker.run()
            if worker.restart:  # nobody would come to kill it
                _insist(REPLACE)
    finally:
        await stored.store.close()
    _sum_up(order.say, worker, clock.monotonic_s() - began_s)
    return REPLACE if worker.restart else DONE


def _introduce(order: Work, connections: int | None) -> None:
    settings = order.settings
    facts: dict[str, object] = {
        "store": describe_store(settings.store),
        "queues": settings.queues,
        "kinds": [kind.name for kind in order.handlers],
        "concurrency": settings.concurrency,
    }
    if connections is not None:
        facts["connections"] = connections
    if settings.memory is not None:
        facts["memory"] = settings.memory
    if order.supervisor:
        facts["supervisor"] = order.supervisor
    order.say("working", **facts, pid=os.getpid())


def _log_memory(say: Say, event: MemoryUsedUp) -> None:
    say(
        "above its memory limit: draining, to be replaced",
        used_mib=round(event.used_bytes / MIB, 1),
        limit_mib=round(event.limit_bytes / MIB, 1),
        start_mib=round(event.start_bytes / MIB, 1),
        pid=os.getpid(),
    )


def _sum_up(say: Say, worker: Worker, took_s: float) -> None:
    ended = {str(state): jobs for state, jobs in worker.tally.ended.items() if jobs}
    say("ended", pid=os.getpid(), seconds=round(took_s, 1), attempts=sum(ended.values()), **ended)


@contextlib.asynccontextmanager
async def _signals(worker: Worker, order: Work, clock: Clock) -> AsyncIterator[None]:
    """The first signal drains, the second stops at once, the third kills."""
    loop = asyncio.get_running_loop()
    asked = 0
    together = Together()

    def stop() -> None:
        nonlocal asked
        if not together.counts(clock.monotonic_s()):
            return
        asked += 1
        if asked == 1:
            worker.drain()
            order.say(
                "draining",
                in_hand=worker.tally.in_hand,
                within_s=order.settings.grace,
                hint="a second signal stops at once",
            )
            return
        worker.stop()
        order.say("stopping at once", in_hand=worker.tally.in_hand)
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        _insist(STOPPED)

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def _orphaned(worker: Worker, order: Work) -> AsyncIterator[None]:
    """Drains when the supervisor is gone: nobody would stop or replace this process any more."""
    if order.lifeline is None:
        yield
        return
    gone = parent_gone(order.lifeline)

    async def watch() -> None:
        await gone.wait()
        order.say("the supervisor is gone: draining", supervisor=order.supervisor)
        worker.drain()

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()


def _insist(code: int) -> None:
    """Ends the process also where a handler goes on all the same.

    What such a handler had begun is in the journal: others find it as after a crash.
    """
    timer = threading.Timer(_PATIENCE_S, os._exit, [code])
    timer.daemon = True
    timer.start()
