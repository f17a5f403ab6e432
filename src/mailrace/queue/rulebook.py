"""What a process knows of the rules of queues, a second old at most."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final

from mailrace.errors import MailraceError
from mailrace.queue.limits import LimitRow, is_template
from mailrace.queue.queuerules import QueueRules
from mailrace.queue.store import Rules

_EVERY_S: Final = 1.0
# An answer "slow down" halves the pace; those that come at once answer what was under way.
_FACTOR: Final = 0.5
_FLOOR: Final = 0.05
_COOL_DOWN_S: Final = 1.0


class RuleBook:
    """Reads the rules now and then, and answers from memory.

    Attributes:
        on_read: Called after each time, with the limits that have other rates than the time before.
    """

    def __init__(self, store: Rules) -> None:
        self._store = store
        self._rules: dict[str, QueueRules] = {}
        self._templates: dict[str, LimitRow] = {}
        self._rates: dict[str, tuple[str, float]] = {}
        self.on_read: Callable[[set[str]], object] | None = None
        self._read = False
        self._slowing: set[asyncio.Task[None]] = set()

    async def known(self) -> None:
        """Returns when they have been read once: nothing may be claimed before."""
        if not self._read:
            await self.turn()

    def of(self, queue: str) -> QueueRules:
        found = self._rules.get(queue)
        if found is None:
            found = self._rules[queue] = QueueRules(name=queue)
        return found

    def ageing_s(self, queue: str) -> float:
        return self.of(queue).ageing_s

    def template(self, name: str) -> LimitRow | None:
        """The limit that is set under a name with placeholders, if there is one."""
        return self._templates.get(name)

    async def turn(self) -> float:
        """Reads them once."""
        self._rules = {rules.name: rules for rules in await self._store.queue_rules()}
        limits: list[LimitRow] = []
        if any(rules.limits for rules in self._rules.values()):
            limits = await self._store.limits()
        self._templates = {limit.name: limit for limit in limits if is_template(limit.name)}
        before = self._rates
        self._rates = {limit.name: (limit.rates, limit.margin) for limit in limits}
        if self.on_read is not None:
            self.on_read(
                {name for name, now in self._rates.items() if before.get(name, now) != now}
            )
        self._read = True
        return _EVERY_S

    def slow_down(self, limits: Sequence[str]) -> None:
        """Has adaptive limits give way, beside everything else."""
        for name in limits:
            task = asyncio.create_task(self._slow(name))
            self._slowing.add(task)
            task.add_done_callback(self._slowing.discard)

    async def close(self) -> None:
        await asyncio.gather(*self._slowing, return_exceptions=True)

    async def _slow(self, name: str) -> None:
        # Out of reach, or removed: whoever is told so next slows down.
        with contextlib.suppress(MailraceError):
            await self._store.slow_limit(
                name, factor=_FACTOR, floor=_FLOOR, cool_down_s=_COOL_DOWN_S
            )
