"""What happens, for whoever wants to know: logs, metrics and progress listen, nobody is called."""

from collections.abc import Callable
from typing import TypeVar

_E = TypeVar("_E")


class Events:
    """Where a part says what happens; the events are values of frozen classes.

    Delivered at once and in order, in the call of `emit`. A follower must not block. One that
    raises is a fault of the program, and comes out where the event was emitted.
    """

    def __init__(self) -> None:
        self._followers: dict[type, list[Callable[[object], None]]] = {}

    def follow(self, kind: type[_E], follower: Callable[[_E], object]) -> None:
        """Calls `follower` with every event of exactly this class from now on."""

        def deliver(event: object) -> None:
            assert isinstance(event, kind)
            follower(event)

        self._followers.setdefault(kind, []).append(deliver)

    def followed(self, kind: type) -> bool:
        """Whether anybody listens: the hot path makes no event that nobody asked for."""
        return kind in self._followers

    def emit(self, event: object) -> None:
        for deliver in self._followers.get(type(event), ()):
            deliver(event)
