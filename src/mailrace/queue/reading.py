"""What is exported of a store, read in one go and never by counting rows without bound."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from mailrace.clock import Clock
from mailrace.queue.alerts import Alert
from mailrace.queue.figures import MINUTE_MS, QueueFigures, Throughput
from mailrace.queue.letters import DeadLetters, Letter, LetterStore
from mailrace.queue.limits import LimitRow
from mailrace.queue.processes import ProcessRow
from mailrace.queue.queuerules import QueueRules
from mailrace.queue.store import Figures, Fleet
from mailrace.queue.supervisors import NOTES, SupervisorRow, read_supervisors
from mailrace.queue.totals import Part, Totals
from mailrace.queue.watching import read_alerts

_HOUR_MS: Final = 3_600_000
# Slices of a minute: those of the last three are read again, as commits may come late.
_LATE_MS: Final = 180_000
_THROUGHPUT_MAX_MS: Final = 24 * _HOUR_MS

Ending = tuple[str, str]
"""A queue, and how attempts there ended: `completed`, `failed` or `retried`."""


class ExportedStore(Fleet, Figures, LetterStore, Protocol):
    """What the numbers come from."""

    async def queue_rules(self) -> list[QueueRules]: ...

    async def limits(self) -> list[LimitRow]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReading:
    """What a store says at one moment.

    Attributes:
        now_ms: By the store's clock.
        rules: By queue.
        ended: Since the first reading.
        dead_letters: Those of the same time.
    """

    now_ms: int
    queues: Sequence[QueueFigures] = ()
    rules: Mapping[str, QueueRules]
    processes: Sequence[ProcessRow] = ()
    supervisors: Sequence[SupervisorRow] = ()
    limits: Sequence[LimitRow] = ()
    alerts: Sequence[Alert] = ()
    ended: Mapping[Ending, int]
    dead_letters: Mapping[Letter, int]


class Reader:
    """Reads a store again and again, and sums up what ended meanwhile.

    A reading that fails or is cancelled changes nothing: the next one makes up for it.
    """

    def __init__(self, store: ExportedStore, clock: Clock) -> None:
        self._store = store
        self._ended: Totals[Ending] = Totals()
        self._dead_letters = DeadLetters(store, clock)
        self._read_ms: int | None = None

    async def read(self) -> StoreReading:
        """All numbers, as they are now.

        Raises:
            UnavailableError: The store is out of reach.
        """
        store = self._store
        now_ms = await store.now_ms()
        queues = await store.queue_figures()
        rules = await store.queue_rules()
        processes = await store.processes()
        supervisors = read_supervisors(await store.notes(NOTES))
        limits = await store.limits()
        alerts = await read_alerts(store)
        throughput = await store.throughput(self._unread_ms(now_ms) / _HOUR_MS)
        dead_letters = await self._dead_letters.read(now_ms)
        self._ended.add(_endings(throughput), settled_ms=now_ms - _LATE_MS - MINUTE_MS)
        self._read_ms = now_ms
        return StoreReading(
            now_ms=now_ms,
            queues=queues,
            rules={row.name: row for row in rules},
            processes=processes,
            supervisors=supervisors,
            limits=limits,
            alerts=alerts,
            ended=self._ended.now(),
            dead_letters=dead_letters,
        )

    def _unread_ms(self, now_ms: int) -> int:
        since_ms = now_ms if self._read_ms is None else self._read_ms
        return min(_THROUGHPUT_MAX_MS, max(0, now_ms - since_ms) + _LATE_MS)


def _endings(throughput: Sequence[Throughput]) -> Iterator[Part[Ending]]:
    for row in throughput:
        yield Part(row.start_ms, (row.queue, "completed"), row.completed)
        yield Part(row.start_ms, (row.queue, "failed"), row.failed)
        yield Part(row.start_ms, (row.queue, "retried"), row.retried)
