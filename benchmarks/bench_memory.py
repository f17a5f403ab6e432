"""Memory and time of `mailrace send` as the list grows: memory should not, time in proportion."""

import argparse

from sending import Outcome, send
from sinks import smtp_sink
from stats import Figure, table

_SIZES = (10_000, 100_000)
_FULL_SIZE = 1_000_000


def measure(*, full: bool = False, sizes: tuple[int, ...] = _SIZES) -> list[Figure]:
    """One run for each size: peaks hardly vary, and a million takes minutes.

    Args:
        full: Also with a million people.
        sizes: Numbers of people, from small to large; the others are compared with the first.
    """
    if full:
        sizes = (*sizes, _FULL_SIZE)
    outcomes: dict[int, Outcome] = {}
    with smtp_sink() as port:
        for size in sizes:
            outcomes[size] = send(port, size)
    return [each for size in sizes for each in _figures(size, outcomes[size], outcomes[sizes[0]])]


def _figures(size: int, one: Outcome, smallest: Outcome) -> list[Figure]:
    beside = "" if one is smallest else "the smallest list"
    peak, small_peak = one.peak_rss_bytes / 1e6, smallest.peak_rss_bytes / 1e6
    return [
        Figure(
            name=f"send, {size:,} people, peak memory",
            value=peak,
            unit="MB",
            ratio=peak / small_peak if beside else None,
            beside=beside,
        ),
        Figure(name=f"send, {size:,} people, wall", value=one.wall_s, unit="s"),
        Figure(
            name=f"send, {size:,} people, rate",
            value=size / one.wall_s,
            unit="messages/s",
        ),
        Figure(
            name=f"send, {size:,} people, store",
            value=one.store_bytes / size,
            unit="bytes a person",
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="also with a million people")
    print(table(measure(full=parser.parse_args().full)))


if __name__ == "__main__":
    main()
