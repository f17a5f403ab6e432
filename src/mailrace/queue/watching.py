"""Looks at the cluster now and then, and tells what became of the alerts."""

from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from mailrace.errors import MisuseError
from mailrace.events import Events
from mailrace.queue.alerts import (
    DEFAULT_RULES,
    Alert,
    AlertRule,
    Snapshot,
    check_rules,
    judge,
)
from mailrace.queue.queuerules import QueueRules
from mailrace.queue.store import Figures, Fleet
from mailrace.queue.supervisors import NOTES, read_supervisors

EVERY_S: Final = 10.0
"""How often the cluster is looked at."""
_ALERTS: Final = "alerts"
_RULES: Final = "alert-rules"
# The last five whole minutes, and the one that is not over.
_THROUGHPUT_HOURS: Final = 0.12
# A supervisor that has been gone for so long is not expected back.
_FORGOTTEN_MS: Final = 3_600_000


class WatchedStore(Fleet, Figures, Protocol):
    """What alerts are judged from."""

    async def queue_rules(self) -> list[QueueRules]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertOpened:
    """Something has been wrong for long enough that a person should know."""

    alert: Alert


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertClosed:
    """It has been well again for long enough."""

    alert: Alert


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRulesUnreadable:
    """The rules in the store cannot be read by this version; those of its own are used."""

    problem: str


class Watching:
    """A chore of `Upkeep`: whoever's turn it is looks, for all.

    Where an alert stands is kept in the store, so that the next one goes on from there.
    """

    def __init__(self, store: WatchedStore, events: Events) -> None:
        self._store = store
        self._events = events

    async def turn(self) -> None:
        now_ms = await self._store.now_ms()
        seen = await self._look(now_ms)
        try:
            rules = await read_rules(self._store)
        except MisuseError as error:
            self._events.emit(AlertRulesUnreadable(problem=error.problem))
            rules = DEFAULT_RULES
        before = await read_alerts(self._store)
        changes = judge(seen, rules, before, now_ms)
        if list(changes.standing) != before:
            await self._store.note(_ALERTS, msgspec.json.encode(changes.standing))
        for alert in changes.opened:
            self._events.emit(AlertOpened(alert=alert))
        for alert in changes.closed:
            self._events.emit(AlertClosed(alert=alert))

    async def _look(self, now_ms: int) -> Snapshot:
        supervisors = read_supervisors(await self._store.notes(NOTES))
        for row in supervisors:
            if now_ms - row.heartbeat_ms > _FORGOTTEN_MS:
                await self._store.note(NOTES + row.name, None)
        return Snapshot(
            now_ms=now_ms,
            queues=await self._store.queue_figures(),
            throughput=await self._store.throughput(_THROUGHPUT_HOURS),
            processes=await self._store.processes(),
            supervisors=supervisors,
            paused=frozenset(row.name for row in await self._store.queue_rules() if row.paused),
        )


async def read_alerts(store: Fleet) -> list[Alert]:
    """All that stand, also those that are not open yet."""
    note = (await store.notes(_ALERTS)).get(_ALERTS)
    try:
        return [] if note is None else msgspec.json.decode(note, type=list[Alert])
    except msgspec.MsgspecError:  # of another version, which knows other kinds: they begin anew
        return []


async def read_rules(store: Fleet) -> tuple[AlertRule, ...]:
    """The rules that hold.

    Raises:
        MisuseError: Those in the store cannot be read.
    """
    note = (await store.notes(_RULES)).get(_RULES)
    if note is None:
        return DEFAULT_RULES
    try:
        return check_rules(msgspec.json.decode(note, type=list[AlertRule]))
    except msgspec.MsgspecError as error:
        raise MisuseError(
            f"the rules for alerts in the store cannot be read: {error}",
            hint="set them again with this version",
        ) from error


async def write_rules(store: Fleet, rules: tuple[AlertRule, ...] | None) -> None:
    """Has these rules hold for everybody; `None`: the default ones.

    Raises:
        MisuseError: Two are for the same thing.
    """
    note = None if rules is None else msgspec.json.encode(check_rules(rules))
    await store.note(_RULES, note)
