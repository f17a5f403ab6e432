"""How the cluster stands, as values: workers and their health, queues, what was told and done."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from mailrace.queue.commands import Action, Answer
from mailrace.queue.figures import MINUTE_MS, QueueFigures, Throughput
from mailrace.queue.processes import ProcessRow
from mailrace.queue.queuerules import ALL_QUEUES, QueueRules
from mailrace.queue.states import JobState

_LATE_MS: Final = 12_000
"""Two heartbeats are missing."""


class Health(StrEnum):
    """Whether a process is there."""

    ALIVE = "alive"
    LATE = "late"
    DEAD = "dead"


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """A process, and whether it is well.

    Attributes:
        why: What is not well with it, one line; empty where all is.
    """

    process: ProcessRow
    health: Health
    why: str = ""


class QueueStanding(msgspec.Struct, frozen=True, kw_only=True):
    """A queue.

    Attributes:
        counts: Jobs by state, every state.
        due: Waiting jobs whose time has come.
        oldest_due_s: How long the first of them has waited.
        per_minute: Jobs that ended in the last whole minute.
        completed: Within the hours that were asked for, as are `failed` and `retried`.
        workers: Processes alive that work on it.
    """

    queue: str
    counts: dict[JobState, int]
    due: int
    oldest_due_s: float
    per_minute: int
    completed: int
    failed: int
    retried: int
    workers: int
    paused: bool = False
    draining: bool = False


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """What ended in one minute, in all queues."""

    start_ms: int
    completed: int
    failed: int
    retried: int


class SystemFigures(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    Attributes:
        now_ms: When, by the store's clock.
        counts: Jobs of all queues by state, every state.
        workers: Processes by what they are doing; those that are dead as `dead`.
        in_hand: Attempts under way; `hands`: that could be.
        series: The hours that were asked for, the oldest minute first; one in which nothing ended
            is left out.
    """

    now_ms: int
    counts: dict[JobState, int]
    due: int
    oldest_due_s: float
    workers: dict[str, int]
    in_hand: int
    hands: int
    queues: list[QueueStanding]
    series: list[Slice]


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an order.

    Attributes:
        commands: Its ids: one, or one each where everybody was told separately.
        answers: What those addressed did, in the order of their answers.
        silent: Those addressed and alive who had not answered when the time was over.
    """

    action: Action
    commands: tuple[int, ...]
    answers: list[Answer]
    silent: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        """Whether everybody did it."""
        return not self.silent and all(answer.done for answer in self.answers)


def view_of(row: ProcessRow, now_ms: int) -> WorkerView:
    """A process as it stands now, by the store's clock."""
    silent_ms = now_ms - row.heartbeat_ms
    if row.expired:
        why = f"no heartbeat for {silent_ms / 1000:.0f} seconds: its leases have ended"
        return WorkerView(process=row, health=Health.DEAD, why=why)
    if silent_ms > _LATE_MS:
        why = f"no heartbeat for {silent_ms / 1000:.0f} seconds"
        return WorkerView(process=row, health=Health.LATE, why=why)
    why = row.vitals.trouble
    if not why and row.vitals.breakers_open:
        why = f"breakers open: {', '.join(row.vitals.breakers_open)}"
    return WorkerView(process=row, health=Health.ALIVE, why=why)


def works_on(row: ProcessRow, queue: str) -> bool:
    """Whether a process takes jobs of a queue."""
    return queue in row.queues or ALL_QUEUES in row.queues


def system_of(
    figures: Sequence[QueueFigures],
    throughput: Sequence[Throughput],
    rows: Sequence[ProcessRow],
    rules: Mapping[str, QueueRules],
    now_ms: int,
) -> SystemFigures:
    """Puts together what the store tells of each part."""
    alive = [row for row in rows if not row.expired]
    workers = Counter("dead" if row.expired else str(row.vitals.state) for row in rows)
    ended: dict[str, list[Throughput]] = defaultdict(list)
    for part in throughput:
        ended[part.queue].append(part)
    return SystemFigures(
        now_ms=now_ms,
        counts={state: sum(row.counts[state] for row in figures) for state in JobState},
        due=sum(row.due for row in figures),
        oldest_due_s=max((row.oldest_due_ms for row in figures if row.due), default=0) / 1000,
        workers=dict(workers),
        in_hand=sum(row.vitals.in_hand for row in alive),
        hands=sum(row.concurrency for row in alive),
        queues=[
            _queue(row, ended[row.queue], alive, rules.get(row.queue), now_ms) for row in figures
        ],
        series=_series(throughput),
    )


def _queue(
    row: QueueFigures,
    ended: Collection[Throughput],
    alive: Sequence[ProcessRow],
    rules: QueueRules | None,
    now_ms: int,
) -> QueueStanding:
    minute_ms = now_ms - now_ms % MINUTE_MS - MINUTE_MS
    return QueueStanding(
        queue=row.queue,
        counts=row.counts,
        due=row.due,
        oldest_due_s=row.oldest_due_ms / 1000 if row.due else 0.0,
        per_minute=sum(
            part.completed + part.failed
            for part in ended
            if minute_ms <= part.start_ms < minute_ms + MINUTE_MS
        ),
        completed=sum(part.completed for part in ended),
        failed=sum(part.failed for part in ended),
        retried=sum(part.retried for part in ended),
        workers=sum(works_on(process, row.queue) for process in alive),
        paused=rules is not None and rules.paused,
        draining=rules is not None and rules.draining,
    )


def _series(throughput: Sequence[Throughput]) -> list[Slice]:
    parts: dict[int, list[Throughput]] = defaultdict(list)
    for part in throughput:
        parts[part.start_ms].append(part)
    return [
        Slice(
            start_ms=start_ms,
            completed=sum(part.completed for part in parts[start_ms]),
            failed=sum(part.failed for part in parts[start_ms]),
            retried=sum(part.retried for part in parts[start_ms]),
        )
        for start_ms in sorted(parts)
    ]
