"""Checks of settings that all policies share: numbers within their range, classes of errors."""

from mailrace.errors import MisuseError

SHORTEST_S = 0.001
LONGEST_S = 1e9
"""About 30 years: long enough for any wait, and far from where sums of times overflow."""


def check_number(name: str, value: object, *, least: float, most: float) -> None:
    """Refuses what is no number from `least` to `most`; `name` is the setting.

    Raises:
        MisuseError: It is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise MisuseError(f"{name} is {value!r}", hint=f"give a number from {least:g} to {most:g}")


def check_whole(name: str, value: object, *, least: int) -> None:
    """Refuses what is no whole number of at least `least`; `name` is the setting.

    Raises:
        MisuseError: It is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise MisuseError(f"{name} is {value!r}", hint=f"give a whole number of at least {least}")


def are_errors(kinds: object) -> bool:
    """Whether it is a tuple of classes of exceptions."""
    return isinstance(kinds, tuple) and all(
        isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds
    )
