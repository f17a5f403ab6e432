"""The share of a rate that the far side bears: additive increase, multiplicative decrease."""

from dataclasses import dataclass
from math import inf, isfinite

from mailrace.errors import MisuseError


@dataclass(frozen=True, slots=True, kw_only=True)
class PaceSettings:
    """How fast a pace gives way and comes back.

    Attributes:
        decrease: What the pace is multiplied by when the far side says to slow down.
        increase: The share of the full rate that is regained in `every_s` seconds of success.
        every_s: Seconds between two increases.
        floor: The lowest pace: some work has to try whether the far side takes more again.
        cool_down_s: Seconds in which further refusals do not count: they answer what was under
            way before the first one.
    """

    decrease: float = 0.5
    increase: float = 0.05
    every_s: float = 1.0
    floor: float = 0.05
    cool_down_s: float = 1.0

    def __post_init__(self) -> None:
        rules = (
            ("decrease", 0.0 < self.decrease < 1.0, "more than 0 and less than 1"),
            ("increase", 0.0 < self.increase <= 1.0, "more than 0 and at most 1"),
            ("every_s", self.every_s > 0.0 and isfinite(self.every_s), "more than 0 seconds"),
            ("floor", 0.0 < self.floor <= 1.0, "more than 0 and at most 1"),
            (
                "cool_down_s",
                self.cool_down_s >= 0.0 and isfinite(self.cool_down_s),
                "0 seconds or more",
            ),
        )
        for name, holds, advice in rules:
            if not holds:
                raise MisuseError(
                    f"{name} {getattr(self, name)} makes no pace", hint=f"give {advice}"
                )


class Pace:
    """How fast to go, as a share of the full rate, by what the far side reports.

    (AIMD, Chiu and Jain 1989: what shares a far side in this way converges to equal shares.)

    Attributes:
        factor: The share; 1.0 at first, never below the floor.
    """

    __slots__ = ("_grown_s", "_settings", "_slowed_s", "factor")

    def __init__(self, settings: PaceSettings | None = None) -> None:
        self._settings = settings or PaceSettings()
        self.factor = 1.0
        self._slowed_s = -inf
        self._grown_s = -inf

    def slowed(self, now_s: float) -> bool:
        """Notes that the far side said to slow down; tells whether the factor changed."""
        settings = self._settings
        self._grown_s = now_s  # nothing grows while it goes on saying so
        if now_s < self._slowed_s + settings.cool_down_s:
            return False
        before, self._slowed_s = self.factor, now_s
        self.factor = max(settings.floor, before * settings.decrease)
        return self.factor != before

    def succeeded(self, now_s: float) -> bool:
        """Notes a success; tells whether the factor changed.

        It grows by one step at most: a pause proves nothing about what the far side bears.
        """
        if self.factor == 1.0:
            return False
        settings = self._settings
        due_s = self._grown_s + settings.every_s
        if now_s < due_s:
            return False
        # From step to step without drift while successes come often; anew after a pause.
        self._grown_s = due_s if now_s < due_s + settings.every_s else now_s
        self.factor = min(1.0, self.factor + settings.increase)
        return True
