"""What every store shows people, and does as they decide."""

from typing import Any

import msgspec
import pytest

from mailrace.queue import JobState, Step, Store
from mailrace.queue.jobrows import EndedCount, JobFilter
from tests.queue.houses import (
    House,
    add,
    claim_of,
    counts,
    ended,
    enter,
    fill,
    new,
    now_ms,
    numbered,
    queue_counts,
)  # fmt: skip


async def ids(store: Store, **where: Any) -> set[int]:
    return {row.id for row in await store.find(JobFilter(**where))}


async def end(store: Store, step: Step, *keys: str, **fields: Any) -> list[int]:
    """Jobs to these keys that ended with the step, in a queue and a tenant of their own."""
    words = {name: fields.pop(name) for name in ("reason", "detail", "category") if name in fields}
    fields = {"queue": "ending", **fields}
    made = await add(store, *keys, **fields)
    process_id = await enter(store)
    jobs = await claim_of(
        store, process_id, len(keys), queue=fields["queue"], tenant=fields.get("tenant", "")
    )
    assert [job.id for job in jobs] == made
    at_ms = await store.now_ms()
    assert await store.finish(ended(jobs, step, at_ms=at_ms, **words)) == 0
    return made


# Find


async def test_jobs_of_all_states_are_found_the_newest_first(house: House, store: Store) -> None:
    made = [
        (await end(store, step, "x"))[0]
        for step in (Step.COMPLETE, Step.FAIL, Step.LOSE, Step.CANCEL, Step.EXPIRE)
    ]
    made += await end(store, Step.RETRY, "x", queue="waiting")
    made += await add(store, "x", delay_ms=5000)
    made += await add(store, "x", "y")
    await claim_of(store, await enter(store), 1)
    rows = await store.find(JobFilter())
    assert [row.id for row in rows] == made[::-1]
    assert {row.id: row.state for row in rows} == house.everything()
    assert {row.state for row in rows} == set(JobState)
    for state in JobState:
        assert await ids(store, states=(state,)) == {row.id for row in rows if row.state is state}
    assert await ids(store, states=(JobState.FAILED, JobState.SCHEDULED)) == {made[1], made[6]}
    assert await ids(store, states=()) == set()


async def test_each_filter_finds_its_jobs_and_all_of_them_together(store: Store) -> None:
    batch_id = await fill(store, 0)
    plain = {"queue": "ending", "kind": "kind", "tenant": "", "tags": ()}
    wanted: dict[str, Any] = {"queue": "q", "kind": "k", "tenant": "t", "tags": ("one", "two")}
    made: dict[str, int] = {}
    for name, value in wanted.items():
        for step in (Step.COMPLETE, Step.FAIL):
            (made[f"{name}-{step}"],) = await end(store, step, "x", **{**plain, name: value})
        (made[name],) = await add(store, "x", delay_ms=1000, **{**plain, name: value})
    (of_batch,) = await add(store, "x", batch_id=batch_id, queue="ending")
    (both,) = await add(store, "x", **wanted, batch_id=batch_id)

    def named(prefix: str) -> set[int]:
        return {job for name, job in made.items() if name.startswith(prefix)} | {both}

    assert await ids(store, queue="q") == named("queue")
    assert await ids(store, kind="k") == named("kind")
    assert await ids(store, tenant="t") == named("tenant")
    assert await ids(store, tag="one") == await ids(store, tag="two") == named("tags")
    assert await ids(store, tag="on") == await ids(store, tag="one,two") == set()
    assert await ids(store, batch_id=batch_id) == {of_batch, both}
    assert await ids(store, queue="q", kind="k", tenant="t", tag="two", batch_id=batch_id) == {both}
    assert await ids(store, queue="q", kind="kind", tag="two") == set()
    assert await ids(store, ids=(made["queue"], of_batch, 4711)) == {made["queue"], of_batch}
    assert await ids(store, ids=(made["queue"], of_batch), queue="q") == {made["queue"]}
    assert await ids(store, ids=()) == set()


async def test_jobs_are_found_by_category_and_reason(store: Store) -> None:
    one = await end(store, Step.FAIL, "a", reason="550 5.1.1", category="data")
    two = await end(store, Step.FAIL, "b", reason="550 5.1.10", category="data")
    three = await end(store, Step.LOSE, "c", reason="550 5.1.1", category="network")
    assert await ids(store, reason="550 5.1.1") == {*one, *three}
    assert await ids(store, category="data") == {*one, *two}
    assert await ids(store, category="data", reason="550 5.1.1") == set(one)
    assert await ids(store, reason="550") == set()


async def test_jobs_are_found_by_a_text_of_theirs_whatever_its_case(store: Store) -> None:
    reason = await end(store, Step.FAIL, "a", reason="Mailbox FULL", detail="nothing")
    detail = await end(store, Step.LOSE, "b", reason="x", detail="the mailbox was Full of it")
    payload = await end(store, Step.COMPLETE, "mailbox.full@example.org", reason="y", detail="z")
    waiting = await add(store, "MAILBOX")
    assert await ids(store, text="mailbox") == {*reason, *detail, *payload, *waiting}
    assert await ids(store, text="FULL@EXAMPLE") == set(payload)
    assert await ids(store, text="Full") == {*reason, *detail, *payload}
    assert await ids(store, text="of it", states=(JobState.FAILED,)) == set()


@pytest.mark.parametrize("text", ["100%", "a_b", "c\\d", "it's", "漢字", "50*", "[x]"])
async def test_a_text_is_looked_for_letter_by_letter(store: Store, text: str) -> None:
    decoys = ("1000", "axb", "c/d", "its", "汉字", "500", "x")
    found = await end(store, Step.FAIL, "a", reason=f"<{text}>")
    await end(store, Step.FAIL, *decoys, reason="|".join(decoys))
    assert await ids(store, text=text) == set(found)


async def test_jobs_are_found_by_when_they_ended(house: House, store: Store) -> None:
    start = now_ms(house)
    made = []
    for second in (10.0, 20.0, 30.0):
        house.clock.move_to(second)
        made += await end(store, Step.FAIL if second == 20.0 else Step.COMPLETE, "x")
    await add(store, "waiting")
    assert await ids(store, ended_before_ms=start + 25_000) == set(made[:2])
    assert await ids(store, ended_after_ms=start + 15_000) == set(made[1:])
    between = {"ended_before_ms": start + 25_000, "ended_after_ms": start + 15_000}
    assert await ids(store, **between) == {made[1]}


async def test_pages_follow_each_other(store: Store) -> None:
    made = [
        job
        for step in (Step.COMPLETE, Step.FAIL, Step.RETRY)
        for job in await end(store, step, *"abcd", queue=step.value)
    ] + await add(store, *"abc")
    seen: list[int] = []
    before_id = None
    while page := await store.find(JobFilter(), limit=4, before_id=before_id):
        assert len(page) <= 4
        seen += [row.id for row in page]
        before_id = page[-1].id
    assert seen == made[::-1]
    page = await store.find(JobFilter(queue="fail"), limit=2, before_id=made[7])
    assert [row.id for row in page] == [made[6], made[5]]


async def test_a_page_has_a_hundred_jobs_unless_it_says_otherwise(store: Store) -> None:
    await add(store, *numbered("k", 120))
    assert len(await store.find(JobFilter())) == 100
    assert len(await store.find(JobFilter(), limit=500)) == 120


# Detail


async def test_a_detail_tells_all_that_is_known_of_a_job(house: House, store: Store) -> None:
    (job_id,) = await add(store, "a", tags=("x",))
    process_id = await enter(store)
    start = now_ms(house)
    steps = ((Step.RETRY, "451"), (Step.DIE, "killed"), (Step.FAIL, "550"))
    leases = []
    for second, (step, reason) in enumerate(steps, 1):
        house.clock.move_to(second)
        jobs = await claim_of(store, process_id)
        leases.append(jobs[0].lease)
        await store.finish(
            ended(
                jobs, step, reason=reason, detail=f"{reason} no", category="provider",
                at_ms=now_ms(house),
            )
        )  # fmt: skip
    detail = await store.detail(job_id)
    assert detail is not None
    assert msgspec.json.decode(detail.payload) == {"to": "a"}
    assert detail.result is None
    assert detail.row == (await store.find(JobFilter()))[0]
    assert (detail.row.tags, detail.row.ended_ms) == (("x",), start + 3000)
    found = [
        (a.lease, a.attempt, a.at_ms, a.step, a.category, a.reason, a.detail)
        for a in detail.attempts
    ]
    assert found == [
        (leases[0], 1, start + 1000, "retry", "provider", "451", "451 no"),
        (leases[1], 2, start + 2000, "die", "provider", "killed", "killed no"),
        (leases[2], 2, start + 3000, "fail", "provider", "550", "550 no"),
    ]


async def test_of_a_job_that_is_not_there_nothing_is_known(store: Store) -> None:
    assert await store.detail(4711) is None


# Cancel


async def test_waiting_jobs_are_cancelled_and_final_ones_are_left(
    house: House, store: Store
) -> None:
    batch_id = await fill(store, 0)
    fields = {"batch_id": batch_id, "queue": "q"}
    await end(store, Step.COMPLETE, "completed", **fields)
    await end(store, Step.FAIL, "failed", **fields)
    await end(store, Step.RETRY, "retryable", **fields, tenant="r")
    await add(store, "scheduled", delay_ms=9, **fields)
    await add(store, "available", **fields)
    await add(store, "other", queue="other")
    house.clock.move_to(1.0)
    assert await store.cancel(JobFilter(queue="q")) == 3
    assert house.states(batch_id) == {
        "completed": JobState.COMPLETED, "failed": JobState.FAILED,
        "retryable": JobState.CANCELLED, "scheduled": JobState.CANCELLED,
        "available": JobState.CANCELLED,
    }  # fmt: skip
    expected = {JobState.COMPLETED: 1, JobState.FAILED: 1, JobState.CANCELLED: 3}
    assert await counts(store, batch_id) == await queue_counts(store, "q") == expected
    assert await queue_counts(store, "other") == {JobState.AVAILABLE: 1}
    rows = await store.find(JobFilter(states=(JobState.CANCELLED,)))
    assert {row.ended_ms for row in rows} == {now_ms(house)}
    assert await store.cancel(JobFilter(queue="q")) == 0
    assert await claim_of(store, await enter(store), queue="q") == []


async def test_a_cancellation_stops_at_its_limit(store: Store) -> None:
    await add(store, *numbered("k", 10))
    assert await store.cancel(JobFilter(), limit=4) == 4
    assert await queue_counts(store) == {JobState.CANCELLED: 4, JobState.AVAILABLE: 6}
    assert await store.cancel(JobFilter(), limit=100) == 6


# Revive


@pytest.mark.parametrize("step", [Step.FAIL, Step.CANCEL, Step.EXPIRE, Step.LOSE], ids=str)
async def test_a_job_that_ended_badly_begins_anew(house: House, store: Store, step: Step) -> None:
    (job_id,) = await end(store, Step.RETRY, "x", attempts=5, priority=0, key="k", tags=("t",))
    process_id = await enter(store)
    jobs = await claim_of(store, process_id, queue="ending")
    assert [job.attempt for job in jobs] == [2]
    await store.finish(ended(jobs, step))
    house.clock.move_to(1.0)
    assert await store.revive(JobFilter(ids=(job_id,))) == 1
    assert await store.revive(JobFilter(ids=(job_id,))) == 0
    assert house.everything() == {job_id: JobState.AVAILABLE}
    assert await queue_counts(store, "ending") == {JobState.AVAILABLE: 1}
    (job,) = await claim_of(store, process_id, queue="ending")
    assert (job.id, job.attempt, job.attempts, job.key) == (job_id, 1, 5, "k")
    assert msgspec.json.decode(job.payload) == {"to": "x"}
    assert job.lease > jobs[0].lease
    assert await store.finish(ended(jobs)) == 1
    (row,) = await store.find(JobFilter())
    assert (row.ended_ms, row.tags) == (None, ("t",))


async def test_completed_and_live_jobs_are_not_revived(house: House, store: Store) -> None:
    await end(store, Step.COMPLETE, "x")
    await add(store, "y", delay_ms=1000)
    await add(store, "z", "zz")
    await claim_of(store, await enter(store), 1)
    before = house.everything()
    assert await store.revive(JobFilter()) == 0
    assert house.everything() == before


async def test_a_job_that_was_cancelled_before_its_time_is_due_when_it_is_revived(
    store: Store,
) -> None:
    (job_id,) = await add(store, "x", delay_ms=86_400_000)
    await store.cancel(JobFilter())
    assert await store.revive(JobFilter()) == 1
    assert [job.id for job in await claim_of(store, await enter(store))] == [job_id]


async def test_a_job_that_had_expired_does_not_expire_again_when_it_is_revived(
    house: House, store: Store
) -> None:
    (job_id,) = await add(store, "x", expires_in_ms=1000)
    house.clock.move_to(2.0)
    assert await store.expire() == 1
    assert await store.revive(JobFilter()) == 1
    assert await store.expire() == 0
    assert [job.id for job in await claim_of(store, await enter(store))] == [job_id]


async def test_a_revival_stops_at_its_limit(store: Store) -> None:
    await end(store, Step.FAIL, *numbered("k", 10))
    assert await store.revive(JobFilter(), limit=4) == 4
    assert await queue_counts(store, "ending") == {JobState.AVAILABLE: 4, JobState.FAILED: 6}


async def test_a_job_whose_unique_key_another_one_has_stays_as_it_is(
    house: House, store: Store
) -> None:
    (first,) = await end(store, Step.FAIL, "x", unique="u")
    (free,) = await end(store, Step.FAIL, "y", unique="free")
    (second,) = await add(store, "z", unique="u")
    assert await store.revive(JobFilter()) == 1
    assert house.everything() == {
        first: JobState.FAILED, free: JobState.AVAILABLE, second: JobState.AVAILABLE,
    }  # fmt: skip
    assert [answer.new for answer in await store.enqueue(new("again", unique="free"))] == [False]
    await store.finish(ended(await claim_of(store, await enter(store))))
    assert await store.revive(JobFilter()) == 1
    assert house.everything()[first] is JobState.AVAILABLE
    assert [answer.id for answer in await store.enqueue(new("again", unique="u"))] == [first]


async def test_of_two_jobs_with_one_unique_key_one_is_revived(store: Store) -> None:
    await end(store, Step.FAIL, "x", unique="u")
    await end(store, Step.LOSE, "y", unique="u")
    await end(store, Step.FAIL, "z")
    assert await store.revive(JobFilter()) == 2
    counted = await queue_counts(store, "ending")
    assert counted.pop(JobState.AVAILABLE) == 2
    assert sum(counted.values()) == 1


async def test_a_uncertain_job_whose_unique_key_is_taken_is_not_sent_again(store: Store) -> None:
    batch_id = await fill(store, 0)
    await end(store, Step.LOSE, "x", unique="u", batch_id=batch_id)
    await add(store, "y", unique="u")
    assert await store.resend(batch_id) == 0
    assert await counts(store, batch_id) == {JobState.UNCERTAIN: 1}


# Reschedule


async def test_waiting_jobs_get_another_time(house: House, store: Store) -> None:
    batch_id = await fill(store, 0)
    fields = {"batch_id": batch_id, "queue": "q"}
    await end(store, Step.RETRY, "retryable", **fields, tenant="r")
    await end(store, Step.FAIL, "failed", **fields)
    await add(store, "running", **fields, tenant="run")
    process_id = await enter(store)
    await claim_of(store, process_id, queue="q", tenant="run")
    await add(store, "scheduled", delay_ms=86_400_000, **fields)
    await add(store, "available", **fields)
    house.clock.move_to(1.0)
    assert await store.reschedule(JobFilter(queue="q"), 5000) == 3
    assert house.states(batch_id) == {
        "retryable": JobState.SCHEDULED, "failed": JobState.FAILED, "running": JobState.RUNNING,
        "scheduled": JobState.SCHEDULED, "available": JobState.SCHEDULED,
    }  # fmt: skip
    expected = {JobState.SCHEDULED: 3, JobState.FAILED: 1, JobState.RUNNING: 1}
    assert await counts(store, batch_id) == await queue_counts(store, "q") == expected
    rows = await store.find(JobFilter(states=(JobState.SCHEDULED,)))
    assert {row.run_at_ms for row in rows} == {now_ms(house) + 5000}
    house.clock.move_to(5.999)
    assert await claim_of(store, process_id, queue="q") == []
    house.clock.move_to(6.0)
    assert len(await claim_of(store, process_id, queue="q")) == 2


async def test_a_job_can_be_had_at_once(store: Store) -> None:
    ids_made = await add(store, "a", "b", "c", delay_ms=86_400_000)
    assert await store.reschedule(JobFilter(), 0, limit=2) == 2
    jobs = await claim_of(store, await enter(store))
    assert len(jobs) == 2
    assert {job.id for job in jobs} < set(ids_made)


# Delete


async def test_final_jobs_are_removed_for_good(house: House, store: Store) -> None:
    removed = [
        job
        for step in (Step.COMPLETE, Step.FAIL, Step.LOSE, Step.CANCEL, Step.EXPIRE)
        for job in await end(store, step, "x", queue="q")
    ]
    kept = await add(store, "scheduled", queue="q", delay_ms=1000)
    kept += await add(store, "running", queue="q", tenant="t")
    await claim_of(store, await enter(store), queue="q", tenant="t")
    other = await end(store, Step.COMPLETE, "x", queue="other")
    assert await store.delete(JobFilter(queue="q"), limit=2) == 2
    assert await store.delete(JobFilter(queue="q")) == 3
    assert await store.delete(JobFilter(queue="q")) == 0
    assert set(house.everything()) == {*kept, *other}
    for job in removed:
        assert await store.detail(job) is None
    assert await queue_counts(store, "q") == {JobState.SCHEDULED: 1, JobState.RUNNING: 1}
    assert await queue_counts(store, "other") == {JobState.COMPLETED: 1}
    await store.tidy()
    assert await queue_counts(store, "q") == {JobState.SCHEDULED: 1, JobState.RUNNING: 1}


# Ended counts


async def test_what_ended_badly_is_grouped_the_largest_group_first(
    house: House, store: Store
) -> None:
    start = now_ms(house)
    words = {"reason": "550", "category": "data"}
    await end(store, Step.FAIL, "a", queue="q", **words)
    house.clock.move_to(5.0)
    await end(store, Step.FAIL, "b", "c", queue="q", **words)
    await end(store, Step.FAIL, "d", "e", queue="q", reason="551", category="data")
    await end(store, Step.LOSE, "f", queue="q", **words)
    await end(store, Step.COMPLETE, *"ghij", queue="q", **words)
    await end(store, Step.FAIL, *"klmno", queue="other", **words)
    found = await store.ended_counts(JobFilter(queue="q"))
    common: dict[str, Any] = {
        "queue": "q",
        "kind": "kind",
        "category": "data",
        "last_ms": start + 5000,
    }
    assert found == [
        EndedCount(state=JobState.FAILED, reason="550", jobs=3, first_ms=start, **common),
        EndedCount(state=JobState.FAILED, reason="551", jobs=2, first_ms=start + 5000, **common),
        EndedCount(state=JobState.UNCERTAIN, reason="550", jobs=1, first_ms=start + 5000, **common),
    ]
    assert [group.jobs for group in await store.ended_counts(JobFilter())] == [5, 3, 2, 1]
    assert [group.jobs for group in await store.ended_counts(JobFilter(reason="551"))] == [2]
    expected = [group for group in found if group.state is JobState.UNCERTAIN]
    uncertain = JobFilter(queue="q", states=(JobState.UNCERTAIN,))
    assert await store.ended_counts(uncertain) == expected
