"""The numbers of a pool at one moment, as a value."""

from dataclasses import dataclass

from mailrace.pool.histogram import Summary
from mailrace.pool.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How long something took, in two sliding windows and ever.

    Attributes:
        count: How often it was measured.
        total_s: All of it together, in seconds.
        last_minute: Percentiles are within 1.6 %, and windows up to a twelfth longer.
        last_5_minutes: The same.
    """

    count: int
    total_s: float
    last_minute: Summary
    last_5_minutes: Summary

    @property
    def mean_s(self) -> float:
        return self.total_s / self.count if self.count else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """What a pool is doing and has done.

    Attributes:
        ledger: Every accepted job, counted once.
        workers: Tasks that exist now, whatever they do.
        active: Those with a job, or with one that runs on after its end.
        idle: Those that wait for a job, or for their turn under `worker_rate`.
        abandoned: Jobs that run on after their end.
        waiting_submits: Submits that wait for room.
        spilled: Jobs in the overflow buffer; the ledger has them among the queued.
        queued_bytes: What waiting jobs occupy, if that is bounded.
        retries: Attempts that were followed by another one.
        timeouts: Attempts that took too long.
        late: Functions that came back after their job had ended.
        plugin_faults: Plugins that raised where they must not.
        deaths: Workers that ended by a fault.
        scale_ups: How often workers were added.
        scale_downs: How often workers were sent away.
        last_scale_up_unix_s: When that was last; `None` for never.
        last_scale_down_unix_s: The same for down.
        dead_letters: Failed jobs that are kept.
        breakers_open: Circuit breakers that let nothing or only probes through.
        memory_used_bytes: What the process used when last looked at; `None` if nobody looks:
            without `PoolSettings.memory`, or without a limit that it could find.
        memory_limit_bytes: What it may use; `None` likewise.
        pace: The share of its rate limit at which the pool runs.
        wait: From submit to start; `None` if metrics are off.
        run: What attempts took; `None` if metrics are off.
    """

    ledger: Ledger
    workers: int
    active: int
    idle: int
    abandoned: int
    waiting_submits: int
    spilled: int
    queued_bytes: int
    retries: int
    timeouts: int
    late: int
    plugin_faults: int
    deaths: int
    scale_ups: int
    scale_downs: int
    last_scale_up_unix_s: float | None
    last_scale_down_unix_s: float | None
    dead_letters: int
    breakers_open: int
    memory_used_bytes: int | None
    memory_limit_bytes: int | None
    pace: float
    wait: Times | None
    run: Times | None
