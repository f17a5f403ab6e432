"""Log lines of a run: one JSON object an event, when asked for."""

from collections.abc import Callable
from typing import Final

import structlog

from mailrace.cli.output import note
from mailrace.events import Events
from mailrace.mail.run import Outcome
from mailrace.queue import JobState, LeaseLost, Rescued, Troubled

_NAMES: Final = {
    JobState.COMPLETED: "sent",
    JobState.FAILED: "failed",
    JobState.RETRYABLE: "retrying",
    JobState.UNCERTAIN: "uncertain",
}


class _Notes:
    """A logger whose lines may be lost, but stop nothing."""

    def info(self, line: str) -> None:
        note(line)


def log_events(events: Events) -> None:
    """Writes what happens to standard error; lines about a message name it and its worker."""
    log = structlog.wrap_logger(
        _Notes(),
        processors=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
    )
    say: Callable[..., object] = log.info
    events.follow(Outcome, lambda outcome: _log_outcome(say, outcome))
    events.follow(
        Troubled, lambda event: say("in trouble", worker=event.worker, problem=str(event.error))
    )
    events.follow(Rescued, lambda event: say("rescued", jobs=event.jobs))
    events.follow(LeaseLost, lambda event: say("lease lost", jobs=event.jobs))


def _log_outcome(say: Callable[..., object], outcome: Outcome) -> None:
    say(
        _NAMES[outcome.state],
        worker=outcome.worker,
        message=outcome.message,
        to=outcome.address,
        attempt=outcome.attempt,
        reason=outcome.reason,
        detail=outcome.detail,
    )
