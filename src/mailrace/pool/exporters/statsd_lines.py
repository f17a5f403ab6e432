"""StatsD's text: one number a line, as many lines as a datagram holds. No I/O in here."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from mailrace.errors import MisuseError
from mailrace.pool.exporters.metrics import DURATIONS, METRICS, MetricType
from mailrace.pool.exporters.reading import Reading

DATAGRAM_MAX_BYTES: Final = 1400
"""What goes through Ethernet and most tunnels in one piece."""

_NAMES_MAX_BYTES: Final = 1000


@dataclass(frozen=True, slots=True)
class Line:
    """One number; `total` is what a counter has reached with it."""

    key: str
    text: str
    total: float | None = None


class Names:
    """How metrics are called: with pool and label in the name, or in tags.

    Args:
        prefix: What all names begin with.
        tags: `None` for plain StatsD; otherwise what DogStatsD gets besides pool and label.

    Raises:
        MisuseError: Something cannot be part of a name.
    """

    def __init__(self, prefix: str, tags: Mapping[str, str] | None) -> None:
        self._prefix = _checked(prefix, "prefix")
        self._tags: dict[str, str] | None = None
        if tags is not None:
            self._tags = {
                _checked(key, "tag"): _checked(value, f"tag {key}") for key, value in tags.items()
            }

    def of(self, pool: str, name: str, label: str = "", value: str = "") -> tuple[str, str]:
        """A metric's name, and what follows its number."""
        if self._tags is None:
            parts = [self._prefix, _clean(pool), name, value]
            return ".".join(part for part in parts if part), ""
        tags = self._tags | {"pool": _clean(pool)} | ({label: value} if label else {})
        return f"{self._prefix}.{name}", f"|#{','.join(f'{k}:{v}' for k, v in tags.items())}"

    def check(self, pools: Iterable[str]) -> None:
        """Refuses pools whose names would be the same or leave no room for a number.

        Raises:
            MisuseError: There is one.
        """
        seen: dict[str, str] = {}
        for pool in pools:
            other = seen.setdefault(_clean(pool), pool)
            if other != pool:
                raise MisuseError(
                    f"pools {other!r} and {pool!r} have one name in StatsD",
                    hint="let their names differ in letters or digits",
                )
            size = sum(len(part) for part in self.of(pool, ""))
            if size > _NAMES_MAX_BYTES:
                raise MisuseError(
                    f"prefix, tags and the name of a pool are {size} bytes together",
                    hint=f"shorten them to {_NAMES_MAX_BYTES}",
                )


def lines_of(
    readings: Mapping[str, Reading], names: Names, sent: Mapping[str, float]
) -> Iterator[Line]:
    """Gauges as they are, and what counters have gained.

    Args:
        readings: By the name of the pool.
        names: How metrics are called.
        sent: What of each counter was sent before, by the key of its line.
    """
    for pool, reading in readings.items():
        for metric in METRICS:
            for value_of_label, value in metric.values(reading).items():
                name, tags = names.of(pool, metric.name, metric.label, value_of_label)
                if metric.type is MetricType.COUNTER:
                    yield from _gain(name, tags, value, sent)
                else:
                    yield _gauge(name, tags, value)
        for durations in DURATIONS:
            times = durations.times(reading)
            if times is None:
                continue
            for part, total in (("count", times.count), ("sum", times.total_s)):
                yield from _gain(*names.of(pool, f"{durations.name}.{part}"), total, sent)
            lately = times.last_minute
            if lately.count:
                parts = {"p50": lately.p50_s, "p95": lately.p95_s, "p99": lately.p99_s}
                for part, value in parts.items():
                    yield _gauge(*names.of(pool, f"{durations.name}.{part}"), value)


def datagrams(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """The lines in their order, as many together as a datagram holds."""
    datagram: list[Line] = []
    size = 0
    for line in lines:
        if datagram and size + len(line.text) > DATAGRAM_MAX_BYTES:
            yield datagram
            datagram, size = [], 0
        datagram.append(line)
        size += len(line.text) + 1
    if datagram:
        yield datagram


def payload(datagram: Iterable[Line]) -> bytes:
    """The lines as they are sent."""
    return "\n".join(line.text for line in datagram).encode()


def _gauge(name: str, tags: str, value: float) -> Line:
    return Line(name + tags, f"{name}:{_number(value)}|g{tags}")


def _gain(name: str, tags: str, total: float, sent: Mapping[str, float]) -> Iterator[Line]:
    before = sent.get(name + tags, 0)
    # Percentiles that were switched off and on again count from zero.
    gain = total - before if total >= before else total
    if gain:
        yield Line(name + tags, f"{name}:{_number(gain)}|c{tags}", total)


def _number(value: float) -> str:
    """Without exponent, which not every server reads; microseconds are exact enough."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _clean(name: str) -> str:
    """A pool's name as a part of a name."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


def _checked(name: str, what: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_./-]+", name):
        raise MisuseError(f"{what} is {name!r}", hint="use letters, digits, and _ - . /")
    return name
