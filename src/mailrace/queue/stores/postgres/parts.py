"""What every part of the store works with."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from mailrace.clock import Clock
from mailrace.queue.stores.postgres.database import Database

_Struct = TypeVar("_Struct", bound=msgspec.Struct)


class Part:
    """A part of the store; the whole inherits from all parts.

    Attributes:
        work: For what workers and enqueuers wait for.
        desk: For what people look at and for upkeep, which never keeps the others waiting.
        clock: For durations; what is stored is stamped by the databases.
    """

    def __init__(self, work: Database, desk: Database, clock: Clock) -> None:
        self.work = work
        self.desk = desk
        self.clock = clock
        self._closers: list[Callable[[], object]] = []

    def on_close(self, closer: Callable[[], object]) -> None:
        """Has something be called when the store is closed."""
        self._closers.append(closer)


def structs(kind: type[_Struct], rows: Iterable[Sequence[Any]]) -> list[_Struct]:
    """Rows as structs, whose fields stand in the order of the columns."""
    names = kind.__struct_fields__
    return [msgspec.convert(dict(zip(names, row, strict=True)), kind) for row in rows]
