"""The supervisor behind `mailrace worker --processes N`: processes that run the same command."""

import asyncio
import os
import sys
import time
from dataclasses import dataclass
from typing import Any, Final

from mailrace.cli.duties import target_per_hour, weights
from mailrace.cli.exits import DONE
from mailrace.cli.logs import Say, log_loops
from mailrace.cli.metrics import Address, serving
from mailrace.cli.opening import check_journals
from mailrace.cli.together import Together
from mailrace.clock import SystemClock
from mailrace.events import Events
from mailrace.queue.children import ProcessDied, ProcessEnded, ProcessStarted
from mailrace.queue.rolling import RestartEnded
from mailrace.queue.staffing import StaffingSettings
from mailrace.queue.supervisor import Scaled, Supervisor, SupervisorEnded
from mailrace.queue.supervisor_settings import SupervisorSettings
from mailrace.settings import Settings
from mailrace.wiring import Chance, describe_store, event_loop, open_store

# What only `send` is set to, and what the supervisor itself goes by.
_NOT_FOR_PROCESSES: Final = ("via", "rate", "workers", "retry", "processes", "target")


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """What processes there are to be.

    Attributes:
        app: Names the handlers; each process imports them.
        processes: How many there are at first.
        bounds: The smallest and the largest number, where it may change.
        metrics: Where the supervisor serves metrics, if anywhere: its processes serve none.
    """

    app: str
    settings: Settings
    say: Say
    processes: int
    bounds: tuple[int, int] | None = None
    metrics: Address | None = None


class PatientSupervisor(Supervisor):
    """Takes signals that come together for one: some tell a process and its whole group."""

    def __init__(self, *arguments: Any, **choices: Any) -> None:
        super().__init__(*arguments, **choices)
        self._signal = Together()

    def stop(self) -> None:
        if self._signal.counts(time.monotonic()):
            super().stop()


def supervise(crew: Crew) -> int:
    """Keeps the processes until a signal or an order ends it; returns the exit code."""
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        runner.run(_supervise(crew))
    return DONE


async def _supervise(crew: Crew) -> None:
    settings, events, staffed = crew.settings, Events(), _settings(crew)
    _log(crew.say, events)
    stored = await open_store(settings.store, journals=settings.journals)
    try:
        check_journals(stored.journals)
        supervisor = PatientSupervisor(
            stored.store,
            lambda _: [sys.executable, "-m", "mailrace", "worker", crew.app],
            {**os.environ, **_variables(settings)},
            clock=SystemClock(),
            rng=Chance().rng,
            events=events,
            settings=staffed,
        )
        async with serving(crew.metrics, stored.store, crew.say):
            _introduce(crew, supervisor)
            await supervisor.run()
    finally:
        await stored.store.close()


def _introduce(crew: Crew, supervisor: Supervisor) -> None:
    facts: dict[str, object] = {}
    if crew.bounds is not None:
        facts["min"], facts["max"] = crew.bounds
    if crew.settings.target is not None:
        facts["target"] = crew.settings.target
    crew.say(
        "supervising",
        name=supervisor.name,
        store=describe_store(crew.settings.store),
        queues=crew.settings.queues,
        processes=crew.processes,
        **facts,
        pid=os.getpid(),
    )


def _settings(crew: Crew) -> SupervisorSettings:
    staffing = None
    if crew.bounds is not None:
        least, most = crew.bounds
        staffing = StaffingSettings(
            processes_min=least,
            processes_max=most,
            target_per_hour=target_per_hour(crew.settings.target),
        )
    return SupervisorSettings(
        processes=crew.processes, staffing=staffing, queues=tuple(weights(crew.settings.queues))
    )


def _variables(settings: Settings) -> dict[str, str]:
    """What the processes are set to: not in their command lines, which everybody can read."""
    values = {
        name: getattr(settings, name)
        for name in settings.__struct_fields__
        if name not in _NOT_FOR_PROCESSES
    }
    return {
        f"MAILRACE_{name.upper()}": _text(value)
        for name, value in values.items()
        if value is not None
    }


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def _log(say: Say, events: Events) -> None:
    log_loops(say, events)
    events.follow(
        ProcessStarted, lambda event: say("process started", place=event.number, process=event.pid)
    )
    events.follow(
        ProcessEnded,
        lambda event: say(
            "process ended", place=event.number, process=event.pid, exit_code=event.code
        ),
    )
    events.follow(
        ProcessDied,
        lambda event: say(
            "process replaced" if event.asked else "process died",
            place=event.number,
            process=event.pid,
            why=event.why,
            lived_s=round(event.lived_s, 1),
            again_in_s=round(event.again_in_s, 1),
        ),
    )
    events.follow(
        Scaled,
        lambda event: say(
            "scaled", before=event.before, processes=event.processes, why=event.reason
        ),
    )
    events.follow(RestartEnded, lambda event: _log_restart(say, event))
    events.follow(SupervisorEnded, lambda event: _log_end(say, event))


def _log_end(say: Say, event: SupervisorEnded) -> None:
    facts = {} if event.error is None else {"problem": str(event.error)}
    say("supervisor ended", name=event.name, **facts)


def _log_restart(say: Say, event: RestartEnded) -> None:
    facts = {"why_not_all": event.why_not} if event.why_not else {}
    say("restart ended", replaced=event.replaced, **facts)
