"""`mailrace schedules`: jobs that are made again and again."""

import msgspec

from mailrace.cli.exits import DONE
from mailrace.cli.opening import on_store
from mailrace.cli.output import as_json, tell
from mailrace.cli.tables import table, time_of
from mailrace.cli.words import printable
from mailrace.errors import MisuseError
from mailrace.jobs import Queue
from mailrace.queue.schedules import ScheduleRow, unreadable


def list_schedules(*, store: str | None = None, json: bool = False) -> int:
    """Lists the schedules, with the slot that was fired last.

    Args:
        store: Where they are kept, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """

    async def look(queue: Queue) -> list[ScheduleRow]:
        return await queue.store.schedules()

    found = on_store(store, look)
    if json:
        tell(as_json(found))
    else:
        tell(_text(found))
    return DONE


def pause(name: str, /, *, store: str | None = None, json: bool = False) -> int:
    """Has a schedule make no jobs until it is resumed.

    Args:
        name: The schedule.
        store: Where it is kept, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """
    return _pause(name, store, paused=True, json=json)


def resume(name: str, /, *, store: str | None = None, json: bool = False) -> int:
    """Has a paused schedule make jobs again; slots that passed count as its catch-up says.

    Args:
        name: The schedule.
        store: Where it is kept, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """
    return _pause(name, store, paused=False, json=json)


def remove(name: str, /, *, store: str | None = None, json: bool = False) -> int:
    """Removes a schedule; the jobs that it made stay.

    Args:
        name: The schedule.
        store: Where it is kept, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """

    async def change(queue: Queue) -> None:
        # Without reading any: one that cannot be read is the one to remove.
        if not await queue.store.remove_schedule(name):
            await _named(queue, name)

    on_store(store, change)
    tell(as_json({"removed": name}) if json else f"{name} removed")
    return DONE


def _pause(name: str, store: str | None, *, paused: bool, json: bool) -> int:
    async def change(queue: Queue) -> ScheduleRow:
        schedule = msgspec.structs.replace(await _named(queue, name), paused=paused)
        await queue.store.put_schedule(schedule)
        return schedule

    found = on_store(store, change)
    tell(as_json(found) if json else f"{name}: {_state(found)}")
    return DONE


async def _named(queue: Queue, name: str) -> ScheduleRow:
    found = {one.name: one for one in await queue.store.schedules()}
    if name not in found:
        known = ", ".join(found) or "none"
        raise MisuseError(f"there is no schedule {name!r}", hint=f"in this store: {known}")
    return found[name]


def _text(schedules: list[ScheduleRow]) -> str:
    """A table of those that can be read, and a line for each other one."""
    heads = ["schedule", "cron", "zone", "kind", "queue", "state", "catch-up", "last slot"]
    rows = [
        (
            one.name,
            one.cron,
            one.zone,
            one.job.kind,
            one.job.queue,
            _state(one),
            one.catch_up,
            time_of(one.last_slot_ms),
        )
        for one in schedules
        if one.job is not None
    ]
    parts = [table(heads, rows, right=())] if rows else []
    bad = [unreadable(one.name, one.trouble) for one in schedules if one.job is None]
    if bad:
        parts.append("\n".join(printable(str(error)) for error in bad))
    return "\n\n".join(parts) or "no schedules yet"


def _state(schedule: ScheduleRow) -> str:
    return "paused" if schedule.paused else "active"
