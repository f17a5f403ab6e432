"""What every store does with recurring jobs: one job a slot."""

import asyncio
from typing import Any

import msgspec
import pytest

from mailrace.errors import ConflictError, MisuseError
from mailrace.queue import JobState, NewJob, Store
from mailrace.queue.jobrows import JobFilter
from mailrace.queue.jobs import Lane
from mailrace.queue.schedules import ScheduleRow
from mailrace.queue.upkeep import Upkeep
from tests.queue.houses import House, claim_of, enter, queue_counts

JOB = NewJob(
    kind="report", payload=msgspec.Raw(b'{"to":"\xc3\xa4"}'), queue="q", tenant="t", priority=2,
    tags=("daily",), attempts=3, lane=Lane.CAMPAIGN, key="k",
)  # fmt: skip
SLOT_MS = 1_800_000_000_000
DAY_MS = 86_400_000
# As a newer version might write them, or somebody by hand.
UNREADABLE = {
    "lane": msgspec.structs.replace(JOB, lane="express"),
    "kind": msgspec.structs.replace(JOB, kind=5),
}


def schedule(name: str = "daily", **fields: Any) -> ScheduleRow:
    row = ScheduleRow(name=name, cron="0 8 * * *", zone="Europe/Berlin", catch_up="one", job=JOB)
    return msgspec.structs.replace(row, **fields)


async def test_a_schedule_is_kept_for_everybody(house: House, store: Store) -> None:
    other = await house.opened()
    assert await store.schedules() == []
    await store.put_schedule(schedule(paused=True))
    await store.put_schedule(schedule("ä'%", cron="@every 5m", zone="UTC", catch_up="all"))
    rows = {row.name: row for row in await other.schedules()}
    assert set(rows) == {"daily", "ä'%"}
    daily = rows["daily"]
    assert (daily.cron, daily.zone, daily.catch_up, daily.paused, daily.last_slot_ms) == (
        "0 8 * * *", "Europe/Berlin", "one", True, None,
    )  # fmt: skip
    assert daily.job == JOB
    assert await other.remove_schedule("daily")
    assert not await store.remove_schedule("daily")
    assert [row.name for row in await store.schedules()] == ["ä'%"]


async def test_a_slot_is_fired_once_over_all_stores(house: House, store: Store) -> None:
    other = await house.opened()
    await store.put_schedule(schedule())
    assert await store.fire("daily", SLOT_MS)
    assert not await other.fire("daily", SLOT_MS)
    assert await other.fire("daily", SLOT_MS + 60_000)
    assert not await store.fire("daily", SLOT_MS)
    assert await queue_counts(store, "q") == {JobState.AVAILABLE: 2}
    assert [row.last_slot_ms for row in await store.schedules()] == [SLOT_MS + 60_000]
    jobs = await claim_of(store, await enter(store), queue="q", tenant="t", priority=2)
    assert len(jobs) == 2
    for job in jobs:
        assert (job.kind, job.key, job.attempts, job.once) == ("report", "k", 3, True)
        assert msgspec.json.decode(job.payload) == {"to": "ä"}
    assert all(row.tags == ("daily",) for row in await store.find(JobFilter()))


async def test_the_latest_slot_stays_when_an_earlier_one_is_fired_late(store: Store) -> None:
    await store.put_schedule(schedule())
    assert await store.fire("daily", SLOT_MS)
    assert await store.fire("daily", SLOT_MS - 60_000)
    assert [row.last_slot_ms for row in await store.schedules()] == [SLOT_MS]


async def test_a_slot_is_of_its_schedule(store: Store) -> None:
    for name in ("one", "two"):
        await store.put_schedule(schedule(name))
        assert await store.fire(name, SLOT_MS)
    assert await queue_counts(store, "q") == {JobState.AVAILABLE: 2}


async def test_stores_that_fire_at_once_make_one_job(house: House, store: Store) -> None:
    other = await house.opened()
    await store.put_schedule(schedule())
    for number in range(8):
        answers = await asyncio.gather(
            *(mine.fire("daily", SLOT_MS + number) for mine in (store, other) * 2)
        )
        assert sorted(answers) == [False, False, False, True]
    assert await queue_counts(store, "q") == {JobState.AVAILABLE: 8}


async def test_a_schedule_that_is_changed_keeps_its_last_slot(house: House, store: Store) -> None:
    await store.put_schedule(schedule())
    await store.fire("daily", SLOT_MS)
    changed = schedule(cron="0 9 * * *", job=msgspec.structs.replace(JOB, kind="other"))
    await (await house.opened()).put_schedule(changed)
    (row,) = await store.schedules()
    assert row.job is not None
    assert (row.cron, row.job.kind, row.last_slot_ms) == ("0 9 * * *", "other", SLOT_MS)
    assert not await store.fire("daily", SLOT_MS)
    assert await store.fire("daily", SLOT_MS + 1)
    assert len(await store.find(JobFilter(kind="other"))) == 1


async def test_a_schedule_stays_fired_when_the_store_is_tidied(house: House, store: Store) -> None:
    await store.put_schedule(schedule())
    await store.fire("daily", SLOT_MS)
    house.clock.move_to(400 * 86_400.0)
    await store.tidy()
    assert not await store.fire("daily", SLOT_MS)
    assert [row.last_slot_ms for row in await store.schedules()] == [SLOT_MS]


async def test_a_schedule_that_is_not_there_cannot_be_fired(store: Store) -> None:
    with pytest.raises(ConflictError, match="no schedule 'daily'"):
        await store.fire("daily", SLOT_MS)
    await store.put_schedule(schedule())
    await store.fire("daily", SLOT_MS)
    await store.remove_schedule("daily")
    with pytest.raises(ConflictError, match="no schedule 'daily'"):
        await store.fire("daily", SLOT_MS)


async def test_slots_are_known_for_forty_days_and_older_ones_count_as_fired(
    house: House, store: Store
) -> None:
    await store.put_schedule(schedule())
    old_ms = SLOT_MS - 40 * DAY_MS
    assert await store.fire("daily", old_ms - 1)
    assert await store.fire("daily", old_ms)
    assert await store.fire("daily", SLOT_MS)
    house.clock.move_to(400 * 86_400.0)
    await store.tidy()
    assert not await store.fire("daily", old_ms)
    assert not await store.fire("daily", old_ms - 1)
    assert not await store.fire("daily", old_ms - 2)
    assert await store.fire("daily", old_ms + 1)
    assert await queue_counts(store, "q") == {JobState.AVAILABLE: 4}


@pytest.mark.parametrize("field", UNREADABLE)
async def test_a_schedule_that_cannot_be_read_says_why_and_hides_no_other(
    store: Store, field: str
) -> None:
    await store.put_schedule(schedule("bad", job=UNREADABLE[field], paused=True))
    await store.put_schedule(schedule("good"))
    bad, good = await store.schedules()
    assert (bad.name, bad.cron, bad.paused, bad.job) == ("bad", "0 8 * * *", True, None)
    assert field in bad.trouble
    assert (good.name, good.job, good.trouble) == ("good", JOB, "")


async def test_a_schedule_that_cannot_be_read_is_not_written_back_but_made_again(
    store: Store,
) -> None:
    await store.put_schedule(schedule(job=UNREADABLE["lane"]))
    (bad,) = await store.schedules()
    with pytest.raises(MisuseError, match=r"'daily' cannot be read: .*express.*; use the version"):
        await store.put_schedule(msgspec.structs.replace(bad, paused=True))
    assert await store.schedules() == [bad]
    await store.put_schedule(schedule())
    (row,) = await store.schedules()
    assert (row.job, row.trouble) == (JOB, "")


@pytest.mark.parametrize("field", UNREADABLE)
async def test_a_schedule_that_cannot_be_read_is_not_fired(store: Store, field: str) -> None:
    await store.put_schedule(schedule(job=UNREADABLE[field]))
    with pytest.raises(MisuseError, match=f"'daily' cannot be read: .*{field}"):
        await store.fire("daily", SLOT_MS)
    assert await store.find(JobFilter()) == []
    await store.put_schedule(schedule())
    assert await store.fire("daily", SLOT_MS)


async def test_a_schedule_that_cannot_be_read_makes_no_job_and_stops_no_other(
    house: House, store: Store
) -> None:
    for name, job in (("a", JOB), ("b", UNREADABLE["kind"]), ("c", JOB)):
        await store.put_schedule(schedule(name, cron="* * * * * *", zone="UTC", job=job))
    upkeep = Upkeep(store, house.clock, keep_s={})
    await house.clock.advance(1)
    with pytest.raises(MisuseError, match="'b' cannot be read"):
        await upkeep.turn()
    fired = {row.name for row in await store.schedules() if row.last_slot_ms is not None}
    assert fired == {"a", "c"}
    assert await queue_counts(store, "q") == {JobState.AVAILABLE: 2}


async def test_upkeep_names_a_completion_job_that_cannot_be_read_and_does_the_rest(
    house: House, store: Store
) -> None:
    await store.put_schedule(schedule(cron="* * * * * *", zone="UTC"))
    for name, then in (("bad", UNREADABLE["lane"]), ("good", JOB)):
        batch = await store.open_batch(name, "kind", b"{}", completion=then)
        await store.seal_batch(batch.id)
    upkeep = Upkeep(store, house.clock, keep_s={})
    await house.clock.advance(1)
    with pytest.raises(MisuseError, match="of the batch 'bad' cannot be read"):
        await upkeep.turn()
    assert await queue_counts(store, "q") == {JobState.AVAILABLE: 2}
