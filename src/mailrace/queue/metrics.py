"""What is exported of a store: each metric's name, type, labels and meaning, and its values."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from mailrace.errors import MisuseError
from mailrace.pool.exporters.metrics import MetricType
from mailrace.queue.alerts import AlertKind
from mailrace.queue.figures import QueueFigures
from mailrace.queue.limits import LimitRow, schedule_of
from mailrace.queue.processes import ProcessRow, ProcessState
from mailrace.queue.queuerules import QueueRules
from mailrace.queue.reading import StoreReading
from mailrace.queue.states import JobState

SERIES_MAX: Final = 1000
"""So many queues, hosts and limits are exported; a limit for each tenant can be any number."""

CATEGORIES: Final = ("provider", "network", "data", "system", "none")
_GONE: Final = "gone"
_SUPERVISOR_STATES: Final = ("working", "restarting", "draining", _GONE)

Values = Iterator[tuple[tuple[str, ...], float]]
"""Values by the labels'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreMetric:
    """A number for each combination of its labels' values.

    Attributes:
        name: Without the exporter's prefix and suffix.
        type: Whether it counts.
        meaning: One sentence for whoever finds it on a dashboard.
        values: Reads them; what has no value now is left out.
        labels: What tells its numbers apart.
    """

    name: str
    type: MetricType
    meaning: str
    values: Callable[[StoreReading], Values]
    labels: tuple[str, ...] = ()


def _queues(reading: StoreReading) -> Sequence[QueueFigures]:
    return sorted(reading.queues, key=lambda row: row.queue)[:SERIES_MAX]


def _of_queues(value: Callable[[QueueFigures], float]) -> Callable[[StoreReading], Values]:
    return lambda reading: (((row.queue,), value(row)) for row in _queues(reading))


def _of_rules(value: Callable[[QueueRules], float]) -> Callable[[StoreReading], Values]:
    def values(reading: StoreReading) -> Values:
        for row in _queues(reading):
            rules = reading.rules.get(row.queue) or QueueRules(name=row.queue)
            yield (row.queue,), value(rules)

    return values


def _jobs(reading: StoreReading) -> Values:
    for row in _queues(reading):
        for state in JobState:
            yield (row.queue, str(state)), row.counts[state]


def _ended(how: str) -> Callable[[StoreReading], Values]:
    """Zero for queues where nothing ended yet: a rate needs two values."""
    return lambda reading: (
        ((row.queue,), reading.ended.get((row.queue, how), 0)) for row in _queues(reading)
    )


def _dead_letters(reading: StoreReading) -> Values:
    for row in _queues(reading):
        others = {category for queue, category in reading.dead_letters if queue == row.queue}
        for category in (*CATEGORIES, *sorted(others.difference(CATEGORIES))):
            labels = row.queue, category
            yield labels, reading.dead_letters.get(labels, 0)


def _by_host(rows: Iterable[ProcessRow]) -> dict[str, list[ProcessRow]]:
    found: dict[str, list[ProcessRow]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.host):
        if row.host in found or len(found) < SERIES_MAX:
            found[row.host].append(row)
    return found


def _of_hosts(value: Callable[[Sequence[ProcessRow]], float]) -> Callable[[StoreReading], Values]:
    """Of the processes that live: what the others told of themselves is not so any more."""

    def values(reading: StoreReading) -> Values:
        for host, rows in _by_host(reading.processes).items():
            yield (host,), value([row for row in rows if not row.expired])

    return values


def _processes(reading: StoreReading) -> Values:
    for host, rows in _by_host(reading.processes).items():
        states = ["dead" if row.expired else str(row.vitals.state) for row in rows]
        for state in (*map(str, ProcessState), "dead"):
            yield (host, state), states.count(state)


def _heartbeats(reading: StoreReading) -> Values:
    for host, rows in _by_host(reading.processes).items():
        oldest_ms = min(row.heartbeat_ms for row in rows)
        yield (host,), max(0, reading.now_ms - oldest_ms) / 1000


def _supervisors(reading: StoreReading) -> Values:
    states = [_GONE if row.is_gone(reading.now_ms) else row.state for row in reading.supervisors]
    for state in _SUPERVISOR_STATES:
        yield (state,), states.count(state)


def _breakers(reading: StoreReading) -> Values:
    processes: dict[str, int] = defaultdict(int)
    for row in reading.processes:
        if not row.expired:
            for kind in row.vitals.breakers_open:
                processes[kind] += 1
    yield from (((kind,), number) for kind, number in sorted(processes.items()))


def _limits(reading: StoreReading) -> Sequence[LimitRow]:
    return sorted(reading.limits, key=lambda row: row.name)[:SERIES_MAX]


def _paces(reading: StoreReading) -> Values:
    yield from (((row.name,), row.pace) for row in _limits(reading))


def _rates(reading: StoreReading) -> Values:
    for row in _limits(reading):
        try:
            interval_s = schedule_of(row).interval_s
        except MisuseError:  # of another version, which knows other rates
            continue
        yield (row.name,), 1 / interval_s


def _next_slots(reading: StoreReading) -> Values:
    for row in _limits(reading):
        yield (row.name,), max(0.0, row.next_slot_ms - reading.now_ms) / 1000


def _alerts(reading: StoreReading) -> Values:
    kinds = [alert.kind for alert in reading.alerts if alert.is_open]
    yield from (((str(kind),), kinds.count(kind)) for kind in AlertKind)


def _left_out(reading: StoreReading) -> Values:
    found = {
        "queues": len(reading.queues),
        "hosts": len({row.host for row in reading.processes}),
        "limits": len(reading.limits),
    }
    yield from (((what,), max(0, number - SERIES_MAX)) for what, number in found.items())


def _gauge(
    name: str, meaning: str, values: Callable[[StoreReading], Values], *labels: str
) -> StoreMetric:
    return StoreMetric(
        name=name, type=MetricType.GAUGE, meaning=meaning, values=values, labels=labels
    )


def _counter(
    name: str, meaning: str, values: Callable[[StoreReading], Values], *labels: str
) -> StoreMetric:
    return StoreMetric(
        name=name, type=MetricType.COUNTER, meaning=meaning, values=values, labels=labels
    )


METRICS: Final = (
    _gauge("jobs", "Jobs that are kept, by state.", _jobs, "queue", "state"),
    _gauge(
        "jobs_due",
        "Waiting jobs whose time has come; estimated beyond ten thousand.",
        _of_queues(lambda row: row.due),
        "queue",
    ),
    _gauge(
        "oldest_due_seconds",
        "How long the first of the due jobs has waited; 0 if none is due.",
        _of_queues(lambda row: row.oldest_due_ms / 1000 if row.due else 0),
        "queue",
    ),
    _counter(
        "jobs_completed", "Jobs that ended well since the exporter began.",
        _ended("completed"), "queue",
    ),
    _counter(
        "jobs_failed", "Jobs that ended failed or uncertain since the exporter began.",
        _ended("failed"), "queue",
    ),
    _counter(
        "retries", "Attempts that another one will follow, since the exporter began.",
        _ended("retried"), "queue",
    ),
    _counter(
        "dead_letters", "Jobs that failed for good since the exporter began, by kind of error.",
        _dead_letters, "queue", "category",
    ),
    _gauge(
        "paused", "1 if nothing is claimed from the queue.",
        _of_rules(lambda rules: rules.paused), "queue",
    ),
    _gauge(
        "draining", "1 if the queue takes nothing new in.",
        _of_rules(lambda rules: rules.draining), "queue",
    ),
    _gauge("processes", "Processes by what they do.", _processes, "host", "state"),
    _gauge(
        "workers", "Attempts that the host's processes can have under way.",
        _of_hosts(lambda rows: sum(row.concurrency for row in rows)), "host",
    ),
    _gauge(
        "workers_active", "Attempts under way.",
        _of_hosts(lambda rows: sum(row.vitals.in_hand for row in rows)), "host",
    ),
    _gauge(
        "jobs_held", "Claimed jobs that are not begun.",
        _of_hosts(lambda rows: sum(row.vitals.held for row in rows)), "host",
    ),
    _gauge(
        "heartbeat_age_seconds", "Since the oldest last heartbeat of the host's processes.",
        _heartbeats, "host",
    ),
    _gauge(
        "loop_stale_seconds", "Since the oldest last useful turn of a loop of its processes.",
        _of_hosts(lambda rows: max((row.vitals.stale_s for row in rows), default=0)), "host",
    ),
    _gauge("breakers_open", "Processes in which the kind's breaker is open.", _breakers, "kind"),
    _gauge("supervisors", "Supervisors by what they do.", _supervisors, "state"),
    _gauge("limit_pace_ratio", "Share of its rate at which the limit runs.", _paces, "limit"),
    _gauge("limit_slots_per_second", "What the limit lets go at its pace.", _rates, "limit"),
    _gauge(
        "limit_next_slot_seconds",
        "Until the next slot that nobody has taken; 0 if there is one now.",
        _next_slots,
        "limit",
    ),
    _gauge("alerts_open", "Alerts that are open, by kind.", _alerts, "kind"),
    _gauge("left_out", "What is not exported because there is too much of it.", _left_out, "of"),
)  # fmt: skip
