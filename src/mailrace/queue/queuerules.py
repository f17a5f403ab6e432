"""What holds for a queue over the whole cluster."""

from typing import Final

import msgspec

from mailrace.errors import MisuseError

ALL_QUEUES: Final = "*"
"""Stands for every queue, where somebody names those that are meant."""


class QueueRules(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of one queue; a queue that nobody set any for has these defaults.

    Attributes:
        paused: Nothing is claimed from it.
        draining: Nothing new is taken in; what is there is worked off.
        concurrency: Jobs that run at the same time over all processes, at most; `None`: any.
        concurrency_per_key: The same for the jobs with one key.
        limits: Names of limits that every job of it waits for. `{tenant}` in a name stands for
            the job's tenant: each tenant then has a limit of its own; `{process}` and `{host}`
            stand for the worker's process and machine.
        ageing_s: A job that has waited so long counts as one priority higher.
    """

    name: str
    paused: bool = False
    draining: bool = False
    concurrency: int | None = None
    concurrency_per_key: int | None = None
    limits: tuple[str, ...] = ()
    ageing_s: float = 60.0

    def __post_init__(self) -> None:
        for name in ("concurrency", "concurrency_per_key"):
            value: object = getattr(self, name)
            if value is not None and not _is_at_least(value, 1, whole=True):
                raise MisuseError(
                    f"{name} of the queue {self.name!r} is {value!r}",
                    hint="give 1 or more, or none; to hold the queue back pause it",
                )
        if not (_is_at_least(self.ageing_s, 0) and self.ageing_s > 0):
            raise MisuseError(
                f"ageing_s of the queue {self.name!r} is {self.ageing_s!r}",
                hint="give seconds above zero",
            )
        limits: object = self.limits
        if not isinstance(limits, tuple) or not all(
            isinstance(limit, str) and limit for limit in limits
        ):
            raise MisuseError(
                f"limits of the queue {self.name!r} is {limits!r}",
                hint='give a tuple of names: ("smtp", "of-{tenant}")',
            )
        for name in ("paused", "draining"):
            if not isinstance(getattr(self, name), bool):
                raise MisuseError(
                    f"{name} of the queue {self.name!r} is {getattr(self, name)!r}",
                    hint="give True or False",
                )


def _is_at_least(value: object, least: float, *, whole: bool = False) -> bool:
    if isinstance(value, bool) or (whole and not isinstance(value, int)):
        return False
    return isinstance(value, int | float) and value >= least
