"""What is exported of a pool: each metric's name, type and meaning, and where its value is read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from mailrace.pool.exporters.reading import Reading
from mailrace.pool.health import Code, Status
from mailrace.pool.numbers import Times


class MetricType(StrEnum):
    """What kind of number it is."""

    COUNTER = "counter"  # ever more, as long as the pool lives
    GAUGE = "gauge"  # what is so now


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number, or one for each value of a label.

    Attributes:
        name: Without the exporter's prefix and suffix.
        type: Whether it counts.
        meaning: One sentence for whoever finds it on a dashboard.
        values: Reads it: by the label's value, or under "" if there is no label. What has no value
            now is left out.
        label: What tells its numbers apart, besides the pool; "" for nothing.
    """

    name: str
    type: MetricType
    meaning: str
    values: Callable[[Reading], Mapping[str, float]]
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """How long something takes: percentiles of the last minute; number and sum since the start."""

    name: str
    meaning: str
    times: Callable[[Reading], Times | None]


def _jobs(reading: Reading) -> Mapping[str, float]:
    ledger = reading.numbers.ledger
    return {
        "completed": ledger.completed,
        "failed": ledger.failed,
        "cancelled": ledger.cancelled,
        "expired": ledger.expired,
        "dropped": ledger.dropped,
        "handed_back": ledger.handed_back,
    }


def _jobs_unfinished(reading: Reading) -> Mapping[str, float]:
    ledger = reading.numbers.ledger
    return {"queued": ledger.queued, "delayed": ledger.delayed, "running": ledger.running}


def _scalings(reading: Reading) -> Mapping[str, float]:
    return {"up": reading.numbers.scale_ups, "down": reading.numbers.scale_downs}


def _last_scaling(reading: Reading) -> Mapping[str, float]:
    numbers = reading.numbers
    times_s = {"up": numbers.last_scale_up_unix_s, "down": numbers.last_scale_down_unix_s}
    return {way: at_s for way, at_s in times_s.items() if at_s is not None}


def _memory_used(reading: Reading) -> Mapping[str, float]:
    used_bytes = reading.numbers.memory_used_bytes
    return {} if used_bytes is None else {"": used_bytes}


def _memory_limit(reading: Reading) -> Mapping[str, float]:
    limit_bytes = reading.numbers.memory_limit_bytes
    return {} if limit_bytes is None else {"": limit_bytes}


def _health_reasons(reading: Reading) -> Mapping[str, float]:
    statuses = dict.fromkeys(Code, Status.HEALTHY)
    statuses |= {reason.code: reason.status for reason in reading.health.reasons}
    return {code.value: float(status) for code, status in statuses.items()}


def _counter(name: str, meaning: str, value: Callable[[Reading], float]) -> Metric:
    return Metric(
        name=name, type=MetricType.COUNTER, meaning=meaning, values=lambda read: {"": value(read)}
    )


def _gauge(name: str, meaning: str, value: Callable[[Reading], float]) -> Metric:
    return Metric(
        name=name, type=MetricType.GAUGE, meaning=meaning, values=lambda read: {"": value(read)}
    )


METRICS: Final = (
    Metric(
        name="jobs",
        type=MetricType.COUNTER,
        label="state",
        meaning="Jobs that ended, by final state.",
        values=_jobs,
    ),
    Metric(
        name="jobs_unfinished",
        type=MetricType.GAUGE,
        label="state",
        meaning="Jobs that are queued, delayed for a retry, or running.",
        values=_jobs_unfinished,
    ),
    _counter("jobs_accepted", "Jobs that came in.", lambda r: r.numbers.ledger.accepted),
    _counter("jobs_refused", "Submits that were turned away.", lambda r: r.numbers.ledger.refused),
    _gauge("jobs_spilled", "Queued jobs in the overflow buffer.", lambda r: r.numbers.spilled),
    _gauge("jobs_abandoned", "Jobs that run on after their end.", lambda r: r.numbers.abandoned),
    _gauge("dead_letters", "Failed jobs that are kept.", lambda r: r.numbers.dead_letters),
    _gauge("queue_bytes", "What queued jobs occupy.", lambda r: r.numbers.queued_bytes),
    _gauge("submits_waiting", "Submits that wait for room.", lambda r: r.numbers.waiting_submits),
    _counter("retries", "Attempts that another one followed.", lambda r: r.numbers.retries),
    _counter("timeouts", "Attempts that took too long.", lambda r: r.numbers.timeouts),
    _counter("late_results", "Results that came after the end.", lambda r: r.numbers.late),
    _counter("plugin_faults", "Plugins that raised.", lambda r: r.numbers.plugin_faults),
    _gauge("workers", "Workers there are.", lambda r: r.numbers.workers),
    _gauge("workers_active", "Workers with a job.", lambda r: r.numbers.active),
    _gauge("workers_idle", "Workers that wait for a job.", lambda r: r.numbers.idle),
    _counter("worker_deaths", "Workers that ended by a fault.", lambda r: r.numbers.deaths),
    Metric(
        name="scalings",
        type=MetricType.COUNTER,
        label="direction",
        meaning="Changes of the number of workers, up or down.",
        values=_scalings,
    ),
    Metric(
        name="last_scaling_timestamp_seconds",
        type=MetricType.GAUGE,
        label="direction",
        meaning="When that was last; missing for never.",
        values=_last_scaling,
    ),
    _gauge("pace_ratio", "Share of its rate at which the pool runs.", lambda r: r.numbers.pace),
    _gauge("breakers_open", "Breakers that are not closed.", lambda r: r.numbers.breakers_open),
    Metric(
        name="memory_used_bytes",
        type=MetricType.GAUGE,
        meaning="What the process uses; missing if that is not watched.",
        values=_memory_used,
    ),
    Metric(
        name="memory_limit_bytes",
        type=MetricType.GAUGE,
        meaning="What it may use; missing likewise.",
        values=_memory_limit,
    ),
    _gauge(
        "health_status",
        "0 healthy, 1 degraded, 2 unhealthy.",
        lambda r: r.health.status,
    ),
    Metric(
        name="health_reasons",
        type=MetricType.GAUGE,
        label="code",
        meaning="The same for everything that can be wrong.",
        values=_health_reasons,
    ),
    _gauge("ready", "1 if more work may be sent here.", lambda r: r.health.ready),
    _gauge("live", "0 if only a restart mends it.", lambda r: r.health.live),
)

DURATIONS: Final = (
    Durations(name="wait_seconds", meaning="From submit to start.", times=lambda r: r.numbers.wait),
    Durations(name="run_seconds", meaning="What attempts took.", times=lambda r: r.numbers.run),
)
