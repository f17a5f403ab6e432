"""How many stored payloads are sealed with which key. Pure."""

from enum import StrEnum

import msgspec

from mailrace.errors import RejectedError, UnavailableError
from mailrace.queue.sealing import Sealer, key_of
from mailrace.queue.states import FINAL, JobState
from mailrace.queue.storedpayloads import PlannedPayload, StoredPayload

_Sort = tuple["KeyUse", str | None]


class KeyUse(StrEnum):
    """What a key is to those that were given. Lists of keys have them in this order."""

    SEALS = "seals"
    """The first one: new payloads are sealed with it."""

    OPENS = "opens"
    """Given, behind the first."""

    MISSING = "missing"
    """Not given: what is sealed with it cannot be opened."""

    DAMAGED = "damaged"
    """No key: which one it was cannot be told."""

    PLAIN = "plain"
    """No key: nothing is sealed."""


_PLACES = {use: place for place, use in enumerate(KeyUse)}


class KeyCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many stored payloads are sealed with one key.

    Attributes:
        key: Its id; `None` for what is damaged or plain.
        planned: Payloads that schedules and the completions of batches will enqueue.
        unopened: How many of all these cannot be opened with the keys that were given.
    """

    key: str | None
    use: KeyUse
    waiting: int = 0
    running: int = 0
    ended: int = 0
    planned: int = 0
    unopened: int = 0


class KeyCounting:
    """Counts by key and by what becomes of the jobs."""

    def __init__(self, sealer: Sealer | None) -> None:
        self._sealer = sealer
        self._given = () if sealer is None else sealer.key_ids
        self._found: dict[_Sort, dict[str, int]] = {
            (self._use(key), key): {} for key in self._given
        }

    def add(self, stored: StoredPayload) -> None:
        self._add_payload(_group(stored.state), bytes(stored.payload), stored.kind)

    def add_planned(self, planned: PlannedPayload | None) -> None:
        """Adds a job to come; `None` is one that cannot be read."""
        if planned is None:
            self._add((KeyUse.DAMAGED, None), "planned", opens=False)
        else:
            self._add_payload("planned", bytes(planned.payload), planned.kind)

    def counts(self) -> list[KeyCount]:
        """The given keys in their order, then others, then what has none."""
        return [
            KeyCount(key=key, use=use, **self._found[use, key])
            for use, key in sorted(self._found, key=self._place)
        ]

    def _add_payload(self, group: str, payload: bytes, kind: str) -> None:
        self._add(self._sort(payload), group, opens=self._opens(payload, kind))

    def _add(self, sort: _Sort, group: str, *, opens: bool) -> None:
        numbers = self._found.setdefault(sort, {})
        numbers[group] = numbers.get(group, 0) + 1
        if not opens:
            numbers["unopened"] = numbers.get("unopened", 0) + 1

    def _sort(self, payload: bytes) -> _Sort:
        try:
            key = key_of(payload)
        except (RejectedError, UnavailableError):
            return KeyUse.DAMAGED, None
        return (KeyUse.PLAIN if key is None else self._use(key)), key

    def _use(self, key: str) -> KeyUse:
        if key not in self._given:
            return KeyUse.MISSING
        return KeyUse.SEALS if key == self._given[0] else KeyUse.OPENS

    def _place(self, sort: _Sort) -> tuple[int, int, str]:
        use, key = sort
        given = self._given.index(key) if use is KeyUse.OPENS and key is not None else 0
        return _PLACES[use], given, key or ""

    def _opens(self, payload: bytes, kind: str) -> bool:
        try:
            if self._sealer is not None:
                self._sealer.open(payload, about=kind.encode())
                return True
            return key_of(payload) is None
        except (RejectedError, UnavailableError):
            return False


def _group(state: JobState) -> str:
    if state is JobState.RUNNING:
        return "running"
    return "ended" if state in FINAL else "waiting"
