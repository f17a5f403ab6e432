"""What every store does with jobs that come in."""

import asyncio
import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailrace.errors import ConflictError
from mailrace.queue import JobState, NewJob, Step, Store
from mailrace.queue.jobrows import JobFilter
from mailrace.queue.jobs import Enqueued, Lane
from mailrace.queue.queuerules import QueueRules
from tests.queue.houses import (
    Estate,
    House,
    add,
    claim_all,
    claim_of,
    counts,
    ended,
    enter,
    fill,
    new,
    now_ms,
    queue_counts,
)  # fmt: skip

SEALED = {"$sealed": "v1.k1", "data": "AAECAw==", "nonce": "+/=", "for": ["a@b", None]}


async def test_jobs_are_answered_in_their_order_with_ids_that_grow(store: Store) -> None:
    answers = await store.enqueue(new("a", "b", "c"))
    assert all(answer.new for answer in answers)
    ids = [answer.id for answer in answers]
    assert ids == sorted(set(ids))
    more = await store.enqueue(new("d"))
    assert more[0].id > ids[-1]
    assert await store.enqueue([]) == []


@pytest.mark.parametrize(
    "payload",
    [
        *({}, [], {"a": {"b": [1, None]}}, ["ä", "\u0000\n\"\\'", "漢字 🐎"], {"\u0000": "\u0000"}),
        *("text", "", "1", "null", "true", '{"a":1}', "\ufffe\u200f\x7f", "%s %(x)s :name ? $1"),
        *(0, -1, 2**53, 1.5, True, False, None, [True, False, None], 10**30, 1e-300),
        SEALED,
    ],
    ids=repr,
)
async def test_a_payload_comes_back_as_the_same_value(store: Store, payload: object) -> None:
    await store.enqueue([NewJob(kind="kind", payload=msgspec.Raw(json.dumps(payload).encode()))])
    (job,) = await claim_of(store, await enter(store))
    found = json.loads(bytes(job.payload))
    assert (found, type(found)) == (payload, type(payload))
    detail = await store.detail(job.id)
    assert detail is not None
    assert json.loads(bytes(detail.payload)) == payload


async def test_a_payload_of_a_megabyte_comes_back(store: Store) -> None:
    payload = {"to": "x", "body": 'ä"\n' * 250_000}
    await store.enqueue([NewJob(kind="kind", payload=msgspec.Raw(msgspec.json.encode(payload)))])
    (job,) = await claim_of(store, await enter(store))
    assert msgspec.json.decode(job.payload) == payload


async def test_a_job_comes_back_with_all_that_it_was_given(house: House, store: Store) -> None:
    batch = await store.open_batch("batch", "kind", b"{}")
    (answer,) = await store.enqueue(
        [
            NewJob(
                kind="k'\"ä🐎", payload=msgspec.Raw(b"[1]"), queue="q'%ä", tenant='t"_🐎',
                priority=-9, expires_in_ms=5000, key="key:ä", batch_id=batch.id,
                tags=("one", "two'\",{}"), attempts=7, lane=Lane.CAMPAIGN,
            )
        ]
    )  # fmt: skip
    now = now_ms(house)
    (row,) = await store.find(JobFilter())
    (job,) = await claim_of(store, await enter(store), queue="q'%ä", tenant='t"_🐎', priority=-9)
    assert (row.id, row.state, row.kind, row.queue, row.tenant, row.priority) == (
        answer.id, JobState.AVAILABLE, "k'\"ä🐎", "q'%ä", 't"_🐎', -9,
    )  # fmt: skip
    assert (row.key, row.batch_id, row.tags, row.attempts, row.lane) == (
        "key:ä", batch.id, ("one", "two'\",{}"), 7, "campaign",
    )  # fmt: skip
    assert (row.created_ms, row.run_at_ms, row.expires_ms) == (now, now, now + 5000)
    assert (row.attempt, row.deaths, row.snoozes, row.ended_ms) == (0, 0, 0, None)
    assert (job.id, job.kind, job.queue, job.tenant, job.priority) == (
        answer.id, "k'\"ä🐎", "q'%ä", 't"_🐎', -9,
    )  # fmt: skip
    assert (job.key, job.batch_id, job.attempts) == ("key:ä", batch.id, 7)
    assert (job.created_ms, job.expires_ms) == (now, now + 5000)
    assert (job.attempt, job.deaths, job.once) == (1, 0, True)


async def test_a_job_that_was_given_nothing_has_the_defaults(store: Store) -> None:
    await add(store, "a")
    (row,) = await store.find(JobFilter())
    assert (row.queue, row.tenant, row.priority, row.key, row.batch_id) == (
        "default", "", 0, None, None,
    )  # fmt: skip
    assert (row.tags, row.attempts, row.lane, row.expires_ms) == ((), None, None, None)
    assert (row.category, row.reason, row.detail, row.process_id) == ("", "", "", None)


# Time


@pytest.mark.parametrize("given_as", ["delay_ms", "run_at_ms"])
async def test_a_job_in_the_future_is_scheduled_and_due_at_its_millisecond(
    house: House, store: Store, given_as: str
) -> None:
    at = {"delay_ms": 5000, "run_at_ms": now_ms(house) + 5000}[given_as]
    (job_id,) = await add(store, "a", **{given_as: at})
    assert house.everything() == {job_id: JobState.SCHEDULED}
    (row,) = await store.find(JobFilter())
    assert row.run_at_ms == now_ms(house) + 5000
    process_id = await enter(store)
    house.clock.move_to(4.999)
    assert await claim_of(store, process_id) == []
    house.clock.move_to(5.0)
    assert [job.id for job in await claim_of(store, process_id)] == [job_id]


@pytest.mark.parametrize("fields", [{"delay_ms": 0}, {"run_at_ms": 0}, {"run_at_ms": 1}])
async def test_a_job_whose_time_is_over_or_now_is_available(
    store: Store, fields: dict[str, int]
) -> None:
    await add(store, "a", **fields)
    assert await queue_counts(store) == {JobState.AVAILABLE: 1}
    assert len(await claim_of(store, await enter(store))) == 1


@pytest.mark.parametrize("given_as", ["expires_in_ms", "expires_at_ms"])
async def test_a_job_tells_when_it_is_not_to_be_started_any_more(
    house: House, store: Store, given_as: str
) -> None:
    at = {"expires_in_ms": 7000, "expires_at_ms": now_ms(house) + 7000}[given_as]
    await add(store, "a", **{given_as: at})
    (row,) = await store.find(JobFilter())
    assert row.expires_ms == now_ms(house) + 7000


# Idempotency keys


async def test_an_idempotency_key_is_taken_for_ever(house: House, store: Store) -> None:
    (first,) = await store.enqueue(new("a", idempotency="x"))
    assert first.new
    again = Enqueued(first.id, new=False)
    assert await store.enqueue(new("b", idempotency="x")) == [again]
    process_id = await enter(store)
    jobs = await claim_of(store, process_id)
    assert await store.enqueue(new("c", idempotency="x")) == [again]
    await store.finish(ended(jobs))
    assert await store.enqueue(new("d", idempotency="x")) == [again]
    assert await claim_of(store, process_id) == []
    assert house.everything() == {first.id: JobState.COMPLETED}


async def test_of_two_idempotency_keys_in_one_call_the_first_counts(store: Store) -> None:
    answers = await store.enqueue(
        [
            *new("a", idempotency="x"), *new("b", idempotency="y"),
            *new("c", idempotency="x"), *new("d"), *new("e", idempotency="y"),
        ]
    )  # fmt: skip
    assert [answer.new for answer in answers] == [True, True, False, True, False]
    assert (answers[2].id, answers[4].id) == (answers[0].id, answers[1].id)
    jobs = await claim_of(store, await enter(store))
    assert [msgspec.json.decode(job.payload)["to"] for job in jobs] == ["a", "b", "d"]
    assert [job.id for job in jobs] == [answer.id for answer in answers if answer.new]


async def test_new_and_known_keys_in_one_call_answer_in_order(store: Store) -> None:
    known = await store.enqueue([job for key in "ace" for job in new(key, idempotency=key)])
    answers = await store.enqueue([job for key in "abcde" for job in new(key, idempotency=key)])
    assert [answer.new for answer in answers] == [False, True, False, True, False]
    assert [answers[place].id for place in (0, 2, 4)] == [answer.id for answer in known]
    assert await queue_counts(store) == {JobState.AVAILABLE: 5}


@pytest.mark.parametrize("field", ["idempotency", "unique"])
async def test_a_key_is_of_its_kind(store: Store, field: str) -> None:
    one: dict[str, Any] = {"kind": "one", field: "x"}
    two: dict[str, Any] = {"kind": "two", field: "x"}
    answers = await store.enqueue([*new("a", **one), *new("b", **two)])
    assert [answer.new for answer in answers] == [True, True]


async def test_an_idempotency_key_is_no_unique_key(store: Store) -> None:
    answers = await store.enqueue([*new("a", idempotency="x"), *new("b", unique="x")])
    assert [answer.new for answer in answers] == [True, True]


async def test_a_key_is_taken_once_a_batch(store: Store) -> None:
    batch_id = await fill(store, 0)
    for keys, added in (("aba", 2), ("bc", 1), ("abc", 0)):
        answers = await store.enqueue(new(*keys, batch_id=batch_id))
        assert sum(answer.new for answer in answers) == added
    other_id = await fill(store, 0, "other")
    answers = await store.enqueue(new(*"ab", batch_id=other_id))
    assert all(answer.new for answer in answers)
    assert await counts(store, batch_id) == {JobState.AVAILABLE: 3}
    assert await counts(store, other_id) == {JobState.AVAILABLE: 2}


async def test_two_stores_make_one_job_for_a_key(house: House, store: Store) -> None:
    other = await house.opened()
    first = await store.enqueue(new("a", idempotency="x"))
    assert await other.enqueue(new("a", idempotency="x")) == [Enqueued(first[0].id, new=False)]
    second = await other.enqueue(new("a", unique="x"))
    assert await store.enqueue(new("a", unique="x")) == [Enqueued(second[0].id, new=False)]


# Unique keys


async def test_of_two_unique_keys_in_one_call_the_first_counts(store: Store) -> None:
    answers = await store.enqueue(new("a", "b", unique="x"))
    assert answers == [Enqueued(answers[0].id, new=True), Enqueued(answers[0].id, new=False)]
    (job,) = await claim_of(store, await enter(store))
    assert msgspec.json.decode(job.payload) == {"to": "a"}


async def test_a_unique_key_is_taken_while_its_job_is_live(house: House, store: Store) -> None:
    (first,) = await add(store, "a", unique="x", delay_ms=1000)
    again = [Enqueued(first, new=False)]
    assert await store.enqueue(new("b", unique="x")) == again  # scheduled
    house.clock.move_to(1.0)
    process_id = await enter(store)
    for step in (Step.RETRY, Step.SNOOZE, Step.RELEASE, Step.DIE):
        jobs = await claim_of(store, process_id)
        assert await store.enqueue(new("b", unique="x")) == again  # running
        await store.finish(ended(jobs, step))
        assert await store.enqueue(new("b", unique="x")) == again  # waiting again
    assert list(house.everything()) == [first]


@pytest.mark.parametrize(
    "step", [Step.COMPLETE, Step.FAIL, Step.LOSE, Step.CANCEL, Step.EXPIRE], ids=str
)
async def test_a_unique_key_is_free_when_its_attempt_was_the_last(store: Store, step: Step) -> None:
    (first,) = await add(store, "a", unique="x")
    await store.finish(ended(await claim_of(store, await enter(store)), step))
    (second,) = await store.enqueue(new("b", unique="x"))
    assert second.new
    assert second.id != first
    assert await store.enqueue(new("c", unique="x")) == [Enqueued(second.id, new=False)]


async def test_a_unique_key_is_free_when_its_job_was_cancelled(store: Store) -> None:
    (first,) = await add(store, "a", unique="x")
    assert await store.cancel(JobFilter(ids=(first,))) == 1
    assert [answer.new for answer in await store.enqueue(new("b", unique="x"))] == [True]


async def test_a_unique_key_is_free_when_its_job_has_expired(house: House, store: Store) -> None:
    await add(store, "a", unique="x", expires_in_ms=1000)
    house.clock.move_to(2.0)
    assert await store.expire() == 1
    assert [answer.new for answer in await store.enqueue(new("b", unique="x"))] == [True]


async def test_a_unique_key_is_free_when_its_job_died_too_often(store: Store) -> None:
    await add(store, "a", unique="x")
    process_id = await enter(store)
    for _ in range(3):
        await store.finish(ended(await claim_of(store, process_id), Step.DIE))
    assert [answer.new for answer in await store.enqueue(new("b", unique="x"))] == [True]


# Both keys together


async def test_a_job_with_both_keys_is_held_back_by_either(house: House, store: Store) -> None:
    (first,) = await add(store, "a", idempotency="i", unique="u")
    again = [Enqueued(first, new=False)]
    assert await store.enqueue(new("b", idempotency="i", unique="other")) == again
    assert await store.enqueue(new("b", idempotency="other", unique="u")) == again
    assert await store.enqueue(new("b", idempotency="i", unique="u")) == again
    await store.finish(ended(await claim_of(store, await enter(store))))
    assert await store.enqueue(new("b", idempotency="i", unique="u")) == again  # for ever
    assert list(house.everything()) == [first]


async def test_a_job_that_was_not_added_leaves_no_key_behind(store: Store) -> None:
    (first,) = await add(store, "a", unique="u")
    assert await store.enqueue(new("b", idempotency="i", unique="u")) == [
        Enqueued(first, new=False)
    ]
    await store.enqueue(new("c", idempotency="taken"))
    await store.enqueue(new("d", idempotency="taken", unique="free"))
    assert [answer.new for answer in await store.enqueue(new("e", unique="free"))] == [True]
    await store.finish(ended(await claim_of(store, await enter(store))))
    (second,) = await store.enqueue(new("f", idempotency="i", unique="u"))
    assert second.new
    assert second.id != first


KEYED = st.tuples(
    st.sampled_from([None, "i", "j"]), st.sampled_from([None, "u", "v"]), st.sampled_from("kl")
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(calls=st.lists(st.lists(KEYED, min_size=1, max_size=6), min_size=1, max_size=3))
def test_any_mixture_of_keys_makes_what_one_by_one_would(
    estate: Estate, calls: list[list[tuple[str | None, str | None, str]]]
) -> None:
    asyncio.run(check_keys(estate.house(), calls))


async def check_keys(house: House, calls: list[list[tuple[str | None, str | None, str]]]) -> None:
    known: dict[tuple[str, str], int] = {}
    store = await house.opened()
    for call in calls:
        jobs = [new("x", idempotency=i, unique=u, kind=kind)[0] for i, u, kind in call]
        answers = await store.enqueue(jobs)
        for answer, (idempotency, unique, kind) in zip(answers, call, strict=True):
            keys = [(kind, key) for key in (idempotency, unique) if key is not None]
            there = {known[key] for key in keys if key in known}
            assert answer.new == (not there)
            assert answer.id in there or answer.id not in known.values()
            if answer.new:
                known |= dict.fromkeys(keys, answer.id)
    await house.close()


# What is refused


async def test_a_queue_that_drains_takes_nothing_in(store: Store) -> None:
    await add(store, "before", queue="q")
    await store.set_queue(QueueRules(name="q", draining=True))
    with pytest.raises(ConflictError, match="q"):
        await store.enqueue([*new("a"), *new("b", queue="q")])
    assert await queue_counts(store) == {}
    assert await queue_counts(store, "q") == {JobState.AVAILABLE: 1}
    assert len(await claim_all(store, await enter(store), "q", 10)) == 1  # it is worked off
    await store.set_queue(QueueRules(name="q"))
    await add(store, "after", queue="q")


async def test_a_sealed_batch_takes_nothing_in(store: Store) -> None:
    batch_id = await fill(store, 2)
    await store.seal_batch(batch_id)
    await store.seal_batch(batch_id)
    with pytest.raises(ConflictError):
        await store.enqueue([*new("a"), *new("b", batch_id=batch_id)])
    assert await queue_counts(store) == {}
    assert await counts(store, batch_id) == {JobState.AVAILABLE: 2}


async def test_a_batch_that_nobody_opened_takes_nothing_in(house: House, store: Store) -> None:
    with pytest.raises(ConflictError):
        await store.enqueue([*new("a"), *new("b", batch_id=4711)])
    assert house.everything() == {}
    with pytest.raises(ConflictError):
        await store.report(4711)
