"""Recurring jobs, as values."""

import msgspec

from mailrace.queue.jobs import NewJob


class ScheduleRow(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is made again and again.

    Attributes:
        cron: Five or six fields, or `@every 5m`.
        zone: The time zone that the fields are meant in, such as `Europe/Berlin`.
        catch_up: What becomes of slots that passed while nobody ran: none, one, all.
        job: What is enqueued at each slot.
        last_slot_ms: The latest slot that was fired, Unix milliseconds.
    """

    name: str
    cron: str
    zone: str
    catch_up: str
    job: NewJob
    paused: bool = False
    last_slot_ms: int | None = None
    created_ms: int = 0
