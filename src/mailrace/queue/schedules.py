"""Recurring jobs, as values."""

from collections.abc import Sequence
from typing import Any

import msgspec

from mailrace.errors import MisuseError
from mailrace.queue.jobs import NewJob, read_job


class ScheduleRow(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is made again and again.

    Attributes:
        cron: Five or six fields, or `@every 5m`.
        zone: The time zone that the fields are meant in, such as `Europe/Berlin`.
        catch_up: What becomes of slots that passed while nobody ran: none, one, all.
        job: What is enqueued at each slot; `None` where it cannot be read.
        trouble: Why not; empty where it can.
        last_slot_ms: The latest slot that was fired, Unix milliseconds.
    """

    name: str
    cron: str
    zone: str
    catch_up: str
    job: NewJob | None
    paused: bool = False
    last_slot_ms: int | None = None
    created_ms: int = 0
    trouble: str = ""


def stored_schedule(columns: Sequence[str], row: Sequence[Any]) -> ScheduleRow:
    """A schedule as a store answers it: its fields under these names, its job as text."""
    values = dict(zip(columns, row, strict=True))
    job, trouble = read_job(values["job"])
    paused = bool(values["paused"])
    return ScheduleRow(**values | {"job": job, "paused": paused, "trouble": trouble})


def write_job(schedule: ScheduleRow) -> str:
    """A schedule's job as the stores keep it.

    Raises:
        MisuseError: There is none to be written, as it could not be read.
    """
    if schedule.job is None:
        raise unreadable(schedule.name, schedule.trouble)
    return msgspec.json.encode(schedule.job).decode()


def unreadable(name: str, trouble: str) -> MisuseError:
    return MisuseError(
        f"the schedule {name!r} cannot be read: {trouble}",
        hint="use the version that made it, make it again, or remove it",
    )
