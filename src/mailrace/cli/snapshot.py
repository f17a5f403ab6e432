"""What a person is told about a run at one moment, as a value."""

import datetime as dt
from dataclasses import dataclass

from mailrace.cli.words import pace, span
from mailrace.queue import BatchReport, JobState
from mailrace.queue.words import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A run at one moment. `sent + failed + waiting + uncertain` are all its people.

    Attributes:
        rate: Messages a second, just now.
        next_due_s: When the first retry is due, Unix time, if nothing else is left.
        why: What holds the rate down.
    """

    sent: int
    failed: int
    uncertain: int
    waiting: int
    retrying: int
    rate: float
    next_due_s: float | None
    why: str

    @property
    def people(self) -> int:
        return self.sent + self.failed + self.uncertain + self.waiting

    @property
    def final(self) -> int:
        return self.people - self.waiting

    @property
    def left_s(self) -> float | None:
        """Seconds to go at the present rate; `None` when it cannot be said."""
        soon = self.waiting - self.retrying
        return soon / self.rate if self.rate > 0 and soon else None


def snapshot(report: BatchReport, *, rate: float, why: str) -> Snapshot:
    counts = report.counts
    retrying = counts[JobState.RETRYABLE]
    waiting = counts[JobState.AVAILABLE] + counts[JobState.RUNNING] + retrying
    only_retries = waiting == retrying and report.next_due_ms is not None
    return Snapshot(
        sent=counts[JobState.COMPLETED],
        failed=counts[JobState.FAILED],
        uncertain=counts[JobState.UNCERTAIN],
        waiting=waiting,
        retrying=retrying,
        rate=rate,
        next_due_s=(report.next_due_ms or 0) / 1000 if only_retries else None,
        why=why,
    )


def figures(now: Snapshot) -> tuple[tuple[str, int], ...]:
    """What is counted, in the order in which it is shown."""
    return (
        ("sent", now.sent),
        ("failed", now.failed),
        ("waiting", now.waiting),
        ("uncertain", now.uncertain),
    )


def line(now: Snapshot, now_s: float) -> str:
    """One line for a log or a pipe."""
    counts = [f"{name} {count:,}" for name, count in figures(now)]
    counts[0] += f" of {now.people:,}"
    return "  ".join([*counts, *outlook(now, now_s)])


def outlook(now: Snapshot, now_s: float) -> list[str]:
    """What is to come: the rate, the time left and what holds it up, or the next try."""
    if not now.waiting:
        return []
    if now.next_due_s is not None:
        at = dt.datetime.fromtimestamp(now.next_due_s).astimezone()
        return [
            f"{counted(now.retrying, 'retry', 'retries')} to come",
            f"next try at {at:%H:%M:%S}, in {span(max(0, round(now.next_due_s - now_s)))}",
        ]
    parts = [pace(now.rate)]
    if now.left_s is not None:
        parts.append(f"{span(round(now.left_s))} left")
    if now.why:
        parts.append(f"held by {now.why}")
    return parts
