"""The past by the day: partitions of completed jobs, made ahead and dropped whole.

A lock that does not come at once is not waited for: the next call tries again, and until then the
rows go into the default partition, or stay.
"""

from datetime import date

from mailrace.queue.stores.postgres.database import Database

_DAYS_AHEAD = 3


async def add_days(database: Database) -> int:
    """Makes those of today and of the next days; returns how many of them there are now."""
    made = [await database.one("day_add", ahead=ahead) for ahead in range(_DAYS_AHEAD + 1)]
    return sum(made)


async def drop_days(database: Database, keep_s: float) -> int:
    """Drops those that lie before the limit as a whole; returns how many jobs that were."""
    dropped = 0
    for (day,) in await database.rows("days_over", keep_s=keep_s):
        dropped += await _drop(database, day) or 0
    return dropped


async def _drop(database: Database, day: date) -> int | None:
    jobs: int | None = await database.one("day_drop", day=day)
    return jobs
