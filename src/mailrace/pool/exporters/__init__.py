"""Exporters: what a pool counts, for Prometheus and for StatsD.

Neither is called by a pool. Both read its numbers when they want them, on the pool's own loop.

    REGISTRY.register(PrometheusCollector(pool))

    async with StatsdExporter(pool, host="statsd.internal"), pool:
        ...

In Prometheus a metric is called `mailrace_pool_jobs_total{pool="mails", state="failed"}`, with
`_total` for counters. In StatsD it is `mailrace.pool.mails.jobs.failed`, or pool and label are
tags. A summary has the quantiles 0.5, 0.95 and 0.99 of the last minute, within 1.6 %, and sum and
count since the pool began; in StatsD these are `.p50`, `.p95`, `.p99`, `.sum` and `.count`.

| metric | label | type | meaning |
|---|---|---|---|
| `up` | | gauge | 1 if the pool answers; Prometheus only |
| `jobs` | `state` | counter | Jobs that ended, by final state |
| `jobs_unfinished` | `state` | gauge | Jobs that are queued, delayed for a retry, or running |
| `jobs_accepted` | | counter | Jobs that came in |
| `jobs_refused` | | counter | Submits that were turned away |
| `jobs_spilled` | | gauge | Queued jobs in the overflow buffer |
| `jobs_abandoned` | | gauge | Jobs that run on after their end |
| `dead_letters` | | gauge | Failed jobs that are kept |
| `queue_bytes` | | gauge | What queued jobs occupy |
| `submits_waiting` | | gauge | Submits that wait for room |
| `retries` | | counter | Attempts that another one followed |
| `timeouts` | | counter | Attempts that took too long |
| `late_results` | | counter | Results that came after the end |
| `plugin_faults` | | counter | Plugins that raised |
| `workers` | | gauge | Workers there are |
| `workers_active` | | gauge | Workers with a job |
| `workers_idle` | | gauge | Workers that wait for a job |
| `worker_deaths` | | counter | Workers that ended by a fault |
| `scalings` | `direction` | counter | Changes of the number of workers, up or down |
| `last_scaling_timestamp_seconds` | `direction` | gauge | When that was last; missing for never |
| `pace_ratio` | | gauge | Share of its rate at which the pool runs |
| `breakers_open` | | gauge | Breakers that are not closed |
| `memory_used_bytes` | | gauge | What the process uses; missing if that is not watched |
| `memory_limit_bytes` | | gauge | What it may use; missing likewise |
| `health_status` | | gauge | 0 healthy, 1 degraded, 2 unhealthy |
| `health_reasons` | `code` | gauge | The same for everything that can be wrong |
| `ready` | | gauge | 1 if more work may be sent here |
| `live` | | gauge | 0 if only a restart mends it |
| `wait_seconds` | | summary | From submit to start |
| `run_seconds` | | summary | What attempts took |
"""

from mailrace.pool.exporters.prometheus import PrometheusCollector
from mailrace.pool.exporters.statsd import ExportFailed, StatsdExporter

__all__ = ["ExportFailed", "PrometheusCollector", "StatsdExporter"]
