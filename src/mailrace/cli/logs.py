"""Log lines: one JSON object an event; on a terminal a worker's are plain text."""

import sys
from collections.abc import Callable
from typing import Final

import structlog

from mailrace.cli.output import note
from mailrace.cli.words import printable
from mailrace.events import Events
from mailrace.mail.run import Outcome
from mailrace.queue import Attempted, JobState, LeaseLost, Rescued, Troubled
from mailrace.queue.alerts import Alert
from mailrace.queue.finisher import ResultRefused
from mailrace.queue.loops import LoopFailed
from mailrace.queue.watching import AlertClosed, AlertOpened, AlertRulesUnreadable

Say = Callable[..., object]
"""Writes a line: what happened, and its figures by name."""

_NAMES: Final = {
    JobState.COMPLETED: "sent",
    JobState.FAILED: "failed",
    JobState.RETRYABLE: "retrying",
    JobState.UNCERTAIN: "uncertain",
}


_DETAIL: Final = 200


class _Notes:
    """A logger whose lines may be lost, but stop nothing."""

    def info(self, line: str) -> None:
        note(line)


def log_lines() -> Say:
    """Writes JSON to standard error."""
    return _lines(structlog.processors.JSONRenderer(ensure_ascii=False))


def log_for_people() -> Say:
    """Writes plain lines to a terminal, and JSON where standard error is no terminal."""
    if sys.stderr is not None and sys.stderr.isatty():
        return _lines(structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0))
    return log_lines()


def _lines(renderer: structlog.typing.Processor) -> Say:
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    say: Say = structlog.wrap_logger(_Notes(), processors=[stamp, renderer]).info
    return say


def log_events(events: Events) -> None:
    """Writes what happens in a run; lines about a message name it and its worker."""
    say = log_lines()
    events.follow(Outcome, lambda outcome: _log_outcome(say, outcome))
    _log_troubles(say, events)


def log_work(say: Say, events: Events, *, attempts: bool) -> None:
    """Writes what happens in a worker.

    Args:
        attempts: Also every attempt that ended.
    """
    _log_troubles(say, events)
    log_loops(say, events)
    events.follow(AlertOpened, lambda event: _log_alert(say, "alert", event.alert))
    events.follow(AlertClosed, lambda event: _log_alert(say, "alert is over", event.alert))
    events.follow(
        AlertRulesUnreadable,
        lambda event: say(
            "alert rules cannot be read, the default ones hold", problem=event.problem
        ),
    )
    events.follow(
        ResultRefused,
        lambda event: say(
            "result refused, the job failed", job=event.job_id, problem=str(event.error)
        ),
    )
    if attempts:
        events.follow(Attempted, lambda event: _log_attempt(say, event))


def log_loops(say: Say, events: Events) -> None:
    """Writes why something that is done again and again could not be done."""
    events.follow(
        LoopFailed,
        lambda event: say(
            "will try again",
            what=event.name,
            problem=str(event.error) or type(event.error).__name__,
            in_s=round(event.again_in_s, 1),
        ),
    )


def _log_troubles(say: Say, events: Events) -> None:
    events.follow(
        Troubled, lambda event: say("in trouble", worker=event.worker, problem=str(event.error))
    )
    events.follow(Rescued, lambda event: say("rescued", jobs=event.jobs))
    events.follow(LeaseLost, lambda event: say("lease lost", jobs=event.jobs))


def _log_outcome(say: Say, outcome: Outcome) -> None:
    say(
        _NAMES[outcome.state],
        worker=outcome.worker,
        message=outcome.message,
        to=outcome.address,
        attempt=outcome.attempt,
        reason=outcome.reason,
        detail=outcome.detail,
    )


def _log_attempt(say: Say, event: Attempted) -> None:
    job, record = event.job, event.record
    facts: dict[str, object] = {"kind": job.kind, "queue": job.queue, "attempt": job.attempt}
    if record.reason:
        facts |= {"category": record.category, "reason": record.reason, "detail": record.detail}
    if record.delay_ms is not None:
        facts["again_in_s"] = record.delay_ms / 1000
    say(str(record.state), job=job.id, worker=event.worker, **facts)


def log_end(say: Say, event: Attempted) -> None:
    """Writes that a job ended without success, in one line of bounded length."""
    job, record = event.job, event.record
    detail = printable(record.detail)
    say(
        str(record.state),
        job=job.id,
        kind=job.kind,
        queue=job.queue,
        attempt=job.attempt,
        category=record.category,
        reason=printable(record.reason)[:_DETAIL],
        detail=detail if len(detail) <= _DETAIL else f"{detail[: _DETAIL - 1]}…",
    )


def _log_alert(say: Say, what: str, alert: Alert) -> None:
    say(what, kind=str(alert.kind), subject=alert.subject, problem=alert.text)
