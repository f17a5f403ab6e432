"""Figures of which less is better: what must not be more than a limit."""

import statistics
from collections.abc import Iterable

from stats import Figure


def at_most(
    name: str,
    values: Iterable[float],
    unit: str,
    most: float,
    *,
    beside: str = "the most",
    promised: bool = True,
) -> Figure:
    """Makes a figure of runs; its ratio says how many times below the limit the median is.

    Args:
        most: The limit, in the unit of the values.
        beside: What the limit is.
        promised: Whether the limit is a mark, or only shown.
    """
    runs = tuple(values)
    median = statistics.median(runs)
    return Figure(
        name=name,
        value=median,
        unit=unit,
        # What cannot be measured is far below any limit, and infinity is no JSON.
        ratio=most / max(median, most / 1000),
        beside=f"{beside}, {most:,g}",
        mark=1.0 if promised else None,
        runs=runs,
    )
