"""Figures: medians of interleaved runs, ratios to what was measured beside them, one table."""

import statistics
from collections.abc import Callable, Iterable, Mapping

import msgspec


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured figure.

    Attributes:
        name: What was measured.
        value: The median of the runs.
        unit: What `value` counts.
        ratio: How many times as good as `beside`, measured in the same run; `None` if there is
            nothing to compare with.
        beside: What `ratio` compares with: a limit or a peer.
        mark: The least `ratio`, or the least `value` where there is no ratio, that is good
            enough; `None` where nothing was promised.
        runs: All values, in the order they were taken.
    """

    name: str
    value: float
    unit: str
    ratio: float | None = None
    beside: str = ""
    mark: float | None = None
    runs: tuple[float, ...] = ()

    @property
    def reached(self) -> bool | None:
        """Whether the mark was reached; `None` where there is no mark."""
        if self.mark is None:
            return None
        return (self.value if self.ratio is None else self.ratio) >= self.mark


def interleaved(
    contestants: Mapping[str, Callable[[], float]], runs: int
) -> dict[str, list[float]]:
    """Calls each contestant in turn, `runs` times over, so that a slow minute hits all of them."""
    values: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(runs):
        for name, measure in contestants.items():
            values[name].append(measure())
    return values


def figure(
    name: str,
    values: Iterable[float],
    unit: str,
    *,
    beside: tuple[str, Iterable[float]] | None = None,
    mark: float | None = None,
) -> Figure:
    """Makes a figure of runs, with the ratio of its median to that of `beside`."""
    runs = tuple(values)
    median = statistics.median(runs)
    label, others = beside or ("", None)
    ratio = None if others is None else median / statistics.median(others)
    return Figure(
        name=name, value=median, unit=unit, ratio=ratio, beside=label, mark=mark, runs=runs
    )


def table(figures: Iterable[Figure]) -> str:
    """The figures as plain text in columns."""
    rows = [("what", "median", "unit", "spread", "ratio", "to", "mark")]
    rows += [_cells(each) for each in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    right = {1, 3, 4}
    lines = []
    for row in rows:
        cells = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _cells(one: Figure) -> tuple[str, str, str, str, str, str, str]:
    verdicts = {None: "", True: "reached", False: "MISSED"}
    mark = "" if one.mark is None else f"{verdicts[one.reached]} (at least {_number(one.mark)})"
    ratio = "" if one.ratio is None else f"{one.ratio:.2f}"
    return one.name, _number(one.value), one.unit, _spread(one), ratio, one.beside, mark


def _spread(one: Figure) -> str:
    """How far apart the runs were, as a part of the median."""
    if len(one.runs) < 2 or not one.value:
        return ""
    return f"{(max(one.runs) - min(one.runs)) / one.value:.0%}"


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
