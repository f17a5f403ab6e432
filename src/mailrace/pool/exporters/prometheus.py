"""Prometheus: a collector that reads pools when it is scraped."""

import concurrent.futures
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from mailrace.pool.exporters.metrics import DURATIONS, METRICS, Durations, Metric, MetricType
from mailrace.pool.exporters.reading import Reading, ask, by_name
from mailrace.pool.extras import load
from mailrace.pool.numbers import Times
from mailrace.pool.options import Duration, seconds
from mailrace.pool.pool import Pool

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily, SummaryMetricFamily
    from prometheus_client.metrics_core import Metric as Family

PREFIX: Final = "mailrace_pool_"
Readings = Mapping[str, Reading]


class PrometheusCollector:
    """A collector for `prometheus_client`; pools do nothing for it until it is scraped.

        REGISTRY.register(PrometheusCollector(pool))

    It may be registered before the pools start, and scraped from any thread: the numbers are read
    on each pool's own loop. A pool that does not answer has `mailrace_pool_up` 0 and no other
    metric, and keeps the others from nothing.

    Args:
        pools: Each with a name of its own, which is the label `pool`.
        timeout: How long a scrape waits for pools whose loop hangs.

    Raises:
        MisuseError: Two pools have one name, or prometheus-client is not installed.
    """

    def __init__(self, *pools: Pool, timeout: Duration = 5.0) -> None:
        self._core = load("prometheus_client.core", extra="prometheus")
        self._pools = by_name(pools)
        self._timeout_s = seconds(timeout, "timeout")

    def describe(self) -> Iterable["Family"]:
        """All metrics without values: the registry checks their names with it."""
        yield self._up({})
        yield from self._families({})

    def collect(self) -> Iterable["Family"]:
        """All metrics of all pools, read now."""
        readings = self._read()
        yield self._up(readings)
        yield from self._families(readings)

    def _read(self) -> Readings:
        answers = {name: ask(pool) for name, pool in self._pools.items()}
        until_s = time.monotonic() + self._timeout_s
        readings: dict[str, Reading] = {}
        for name, answer in answers.items():
            try:
                reading = answer.result(max(0.0, until_s - time.monotonic()))
            except concurrent.futures.TimeoutError:
                answer.cancel()
            else:
                if reading is not None:
                    readings[name] = reading
        return readings

    def _up(self, readings: Readings) -> "GaugeMetricFamily":
        family: GaugeMetricFamily = self._core.GaugeMetricFamily(
            f"{PREFIX}up", "Whether the pool has answered.", labels=["pool"]
        )
        for name in self._pools:
            family.add_metric([name], name in readings)
        return family

    def _families(self, readings: Readings) -> Iterable["Family"]:
        for metric in METRICS:
            yield self._family(metric, readings)
        for durations in DURATIONS:
            yield self._summary(durations, readings)

    def _family(self, metric: Metric, readings: Readings) -> "Family":
        is_counter = metric.type is MetricType.COUNTER
        kind = self._core.CounterMetricFamily if is_counter else self._core.GaugeMetricFamily
        labels = ["pool", metric.label] if metric.label else ["pool"]
        family: GaugeMetricFamily = kind(PREFIX + metric.name, metric.meaning, labels=labels)
        for pool, reading in readings.items():
            for value_of_label, value in metric.values(reading).items():
                family.add_metric([pool, value_of_label][: len(labels)], value)
        return family

    def _summary(self, durations: Durations, readings: Readings) -> "Family":
        name = PREFIX + durations.name
        family: SummaryMetricFamily = self._core.SummaryMetricFamily(
            name, durations.meaning, labels=["pool"]
        )
        for pool, reading in readings.items():
            times = durations.times(reading)
            if times is None:
                continue
            for quantile, value_s in _quantiles(times).items():
                family.add_sample(name, {"pool": pool, "quantile": quantile}, value_s)
            family.add_metric([pool], times.count, times.total_s)
        return family


def _quantiles(times: Times) -> Mapping[str, float]:
    """Percentiles of the last minute; not a number if nothing was measured in it."""
    summary = times.last_minute
    if not summary.count:
        return dict.fromkeys(("0.5", "0.95", "0.99"), float("nan"))
    return {"0.5": summary.p50_s, "0.95": summary.p95_s, "0.99": summary.p99_s}
