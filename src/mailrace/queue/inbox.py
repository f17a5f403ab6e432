"""What was ordered over the store, for a process or a supervisor."""

from collections.abc import Sequence

from mailrace.queue.commands import Command
from mailrace.queue.store import Fleet


class Inbox:
    """Reads orders; what was ordered before the first look is not meant for who looks."""

    def __init__(self, store: Fleet) -> None:
        self._store = store
        self._seen = 0
        self._since_ms: int | None = None

    async def new(self, targets: Sequence[str]) -> list[Command]:
        """Orders to these targets that are not marked as seen, the oldest first."""
        if self._since_ms is None:
            self._since_ms = await self._store.now_ms()
        if not targets:
            return []
        found = await self._store.commands(targets, self._seen)
        new = [command for command in found if command.created_ms >= self._since_ms]
        if found and not new:
            self._seen = found[-1].id
        return new

    def mark(self, command: Command) -> None:
        """Has it, and all before it, come no more. Those that are not reached come again."""
        self._seen = command.id
