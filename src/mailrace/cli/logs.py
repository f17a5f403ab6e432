"""Log lines of a run: one JSON object an attempt, when asked for."""

import sys
from collections.abc import Callable

import structlog

from mailrace.mail.sending import address_of
from mailrace.queue import Attempted

_EVENTS = {
    "completed": "sent",
    "failed": "failed",
    "retryable": "retrying",
    "uncertain": "uncertain",
}


def attempt_log() -> Callable[[Attempted, str], None]:
    """A follower that writes what came of each attempt to standard error."""
    log = structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
    )

    def follow(attempted: Attempted, message: str) -> None:
        log.msg(
            _EVENTS[attempted.record.state],
            worker=attempted.worker,
            message=message,
            to=address_of(attempted.job),
            attempt=attempted.job.attempt,
            reason=attempted.result.reason,
            detail=attempted.result.detail,
        )

    return follow
