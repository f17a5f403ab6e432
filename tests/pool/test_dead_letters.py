"""Dead letters: what is kept of jobs that failed for good, and how they are run again."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.pool import (
    Attempt,
    DeadLetter,
    DeadLetters,
    Job,
    JobOptions,
    JobState,
    Kind,
    Pool,
    PoolClosedError,
    PoolFullError,
    Reason,
    RetryPolicy,
    RetrySchedule,
)
from mailrace.pool.options import Terms
from tests.pool.plugged import Plugged, plugged
from tests.support.clock import settle

NOON_S = 1_800_000_000.0


def letter(number: int, **changes: Any) -> DeadLetter:
    fields: dict[str, Any] = {
        "id": number,
        "name": "send",
        "reason": Reason.ERROR,
        "error_type": "ValueError",
        "message": "no",
        "attempts": (),
        "at_unix_s": float(number),
        "key": None,
        "metadata": {},
        "function": print,
        "args": (),
        "kwargs": None,
        "terms": Terms(JobOptions()),
        "kind": Kind.THREAD,
    }
    return DeadLetter(**fields | changes)


class Patient:
    """A function that fails until it is cured."""

    def __init__(self) -> None:
        self.cured = False
        self.calls: list[tuple[Any, ...]] = []

    async def treat(self, *args: Any, **kwargs: Any) -> str:
        self.calls.append((*args, *kwargs.items()))
        if not self.cured:
            raise ZeroDivisionError("ill")
        return "well"


async def fallen(bench: Plugged, patient: Patient, count: int, **options: Any) -> list[Job[str]]:
    """Jobs that have failed for good."""
    view = bench.pool.options(**options)
    jobs = [view.submit_nowait(patient.treat, number, order=-number) for number in range(count)]
    await bench.unplug()
    await bench.plug()
    assert all(job.state is JobState.FAILED for job in jobs)
    return jobs


# What is kept.


async def test_a_dead_letter_tells_all_attempts_with_their_times_and_holds_the_arguments() -> None:
    patient = Patient()
    retry = RetryPolicy(delays=RetrySchedule((10.0, 20.0)))
    async with plugged() as bench:
        view = bench.pool.options(
            retry=retry, name="treatment", key="ward", metadata={"bed": 3}, priority="high"
        )
        job = view.submit_nowait(patient.treat, "arm", side="left")
        await bench.clock.advance(5)
        await bench.unplug()
        assert len(bench.pool.dead_letters) == 0, "not before the last attempt"
        await bench.clock.advance(60)
        (kept,) = bench.pool.dead_letters
    assert kept.attempts == (
        Attempt(1, NOON_S + 5, 0.0, "ZeroDivisionError", "ill"),
        Attempt(2, NOON_S + 15, 0.0, "ZeroDivisionError", "ill"),
        Attempt(3, NOON_S + 35, 0.0, "ZeroDivisionError", "ill"),
    )
    assert (kept.id, kept.name, kept.key) == (job.id, "treatment", "ward")
    assert (kept.reason, kept.error_type) == (Reason.ATTEMPTS, "ZeroDivisionError")
    assert (kept.message, kept.at_unix_s, kept.metadata) == ("ill", NOON_S + 35, {"bed": 3})
    assert (kept.function, kept.args, kept.kwargs) == (patient.treat, ("arm",), {"side": "left"})
    assert (job.args, job.kwargs) == ((), None), "the job itself has let go of them"


async def test_each_letter_names_its_reason() -> None:
    async def fail(error: Exception) -> None:
        raise error

    async def never() -> None:
        await asyncio.Event().wait()

    picky = RetryPolicy(delays=RetrySchedule((1.0,)), never_on=(KeyError,))
    async with plugged(workers=5) as bench:
        for options, function, args in (
            ({}, fail, (ValueError(),)),
            ({"retry": picky}, fail, (KeyError(),)),
            ({"retry": picky}, fail, (ValueError(),)),
            ({"timeout": 1}, never, ()),
            ({"deadline": 1}, never, ()),
        ):
            view: Any = bench.pool.options(**options)
            view.submit_nowait(function, *args)
        await bench.clock.advance(10)
        assert bench.pool.dead_letters.reasons() == {
            Reason.ERROR: 1,
            Reason.PERMANENT: 1,
            Reason.ATTEMPTS: 1,
            Reason.TIMEOUT: 1,
            Reason.DEADLINE: 1,
        }
        types = {kept.error_type for kept in bench.pool.dead_letters}
        assert types == {"ValueError", "KeyError", "JobTimeoutError"}


async def test_only_failed_jobs_become_dead_letters() -> None:
    async with plugged(queue_size=2, overflow="drop oldest") as bench:
        bench.pool.submit_nowait(bench.note, "dropped")
        bench.pool.options(expires=1).submit_nowait(bench.note, "expires")
        bench.pool.submit_nowait(bench.note, "cancelled").cancel()
        bench.pool.submit_nowait(bench.note, "handed back")
        await bench.clock.advance(1)
        await bench.pool.close(0)
        assert bench.pool.ledger().final >= 4
        assert len(bench.pool.dead_letters) == 0


async def test_the_oldest_give_way_and_are_counted() -> None:
    async with plugged(dead_letters=3) as bench:
        jobs = await fallen(bench, Patient(), 10)
        assert [kept.id for kept in bench.pool.dead_letters] == [job.id for job in jobs[7:]]
        assert bench.pool.dead_letters.evicted == 7
        assert bench.pool.numbers().dead_letters == 3


async def test_none_are_kept_if_that_is_asked_for() -> None:
    async with plugged(dead_letters=0) as bench:
        await fallen(bench, Patient(), 3)
        assert list(bench.pool.dead_letters) == []
        assert bench.pool.ledger().failed == 3


@given(
    most=st.integers(0, 10),
    steps=st.lists(
        st.one_of(
            st.just(("add", 0.0)),
            st.tuples(st.just("take"), st.floats(0, 60)),
            st.tuples(st.just("purge"), st.floats(0, 60)),
            st.tuples(st.just("change"), st.integers(0, 10)),
        ),
        max_size=60,
    ),
)
def test_dead_letters_are_what_a_plain_list_of_them_would_be(
    most: int, steps: list[tuple[str, float]]
) -> None:
    letters, model, evicted = DeadLetters(most, lambda: 100.0), list[DeadLetter](), 0
    for number, (step, value) in enumerate(steps):
        if step == "add":
            model.append(letter(number))
            letters.add(model[-1])
        elif step == "take":
            taken = next((kept for kept in model if kept.id == int(value)), None)
            assert letters.take(int(value)) is taken
            model = [kept for kept in model if kept is not taken]
        elif step == "purge":
            before = len(model)
            age_s = 100.0 - value
            model = [kept for kept in model if kept.at_unix_s >= 100.0 - age_s]
            assert letters.purge(age_s) == before - len(model)
        else:
            most = int(value)
            letters.change(most)
        surplus = max(0, len(model) - most)
        model, evicted = model[surplus:], evicted + surplus
        assert list(letters) == model
        assert len(letters) == len(model)
        assert letters.evicted == evicted
        assert all(letters.get(kept.id) is kept for kept in model)
        assert sum(group.count for group in letters.groups()) == len(model)
        assert sum(letters.reasons().values()) == len(model)


def test_groups_tell_what_failed_how_often_and_since_when() -> None:
    letters = DeadLetters(100, lambda: 0.0)
    for number in range(10):
        letters.add(letter(number, name="send" if number < 7 else "fetch"))
    letters.add(letter(10, error_type="KeyError"))
    letters.add(letter(11, error_type="KeyError", reason=Reason.PERMANENT))
    found = [
        (group.name, group.error_type, group.reason, group.count) for group in letters.groups()
    ]
    assert found[:2] == [
        ("send", "ValueError", Reason.ERROR, 7),
        ("fetch", "ValueError", Reason.ERROR, 3),
    ]
    assert set(found[2:]) == {
        ("send", "KeyError", Reason.ERROR, 1),
        ("send", "KeyError", Reason.PERMANENT, 1),
    }
    first = letters.groups()[0]
    assert (first.first_unix_s, first.last_unix_s) == (0.0, 6.0)


async def test_old_ones_can_be_purged_and_so_can_all() -> None:
    async with plugged() as bench:
        await fallen(bench, Patient(), 2)
        await bench.clock.advance(100)
        await fallen(bench, Patient(), 3)
        letters = bench.pool.dead_letters
        await bench.clock.advance(50)
        assert letters.purge(150) == 0
        assert letters.purge(older_than=timedelta(seconds=149)) == 2
        assert len(letters) == 3
        assert letters.purge() == 3
        assert len(letters) == 0
        wrongs: list[Any] = [0, -1, "a day", True]
        for wrong in wrongs:
            with pytest.raises(MisuseError, match=r"^older_than is .*seconds or a timedelta"):
                letters.purge(wrong)


# Again.


async def test_one_some_or_all_can_be_run_again() -> None:
    patient = Patient()
    async with plugged() as bench:
        jobs = await fallen(bench, patient, 6, name="treatment", key="ward", priority="low")
        patient.cured = True
        patient.calls.clear()
        ids = [job.id for job in jobs]
        one = await bench.pool.reprocess(ids[2])
        some = await bench.pool.reprocess(ids[5], ids[0])
        assert [kept.id for kept in bench.pool.dead_letters] == [ids[1], ids[3], ids[4]]
        all_others = await bench.pool.reprocess()
        assert len(bench.pool.dead_letters) == 0
        again = [*one, *some, *all_others]
        assert {(job.name, job.key, job.terms.level) for job in again} == {
            ("treatment", "ward", -1)
        }
        assert not set(ids) & {job.id for job in again}, "they are new jobs"
        await bench.unplug()
        assert [await job for job in again] == ["well"] * 6
        assert patient.calls == [(number, ("order", -number)) for number in (2, 5, 0, 1, 3, 4)]
        ledger = bench.pool.ledger()
        assert (ledger.failed, ledger.completed) == (6, 6 + 2)


async def test_functions_in_threads_are_run_again_in_threads() -> None:
    fails = [True]

    def work(value: int) -> int:
        if fails.pop() if fails else False:
            raise ZeroDivisionError
        return value

    async with Pool(workers=1) as pool:
        job = await pool.submit(work, 5)
        assert (await job.outcome()).state is JobState.FAILED
        (again,) = await pool.reprocess()
        assert await again == 5


async def test_what_fails_again_is_a_dead_letter_again() -> None:
    async with plugged() as bench:
        (job,) = await fallen(bench, Patient(), 1)
        (again,) = await bench.pool.reprocess()
        await bench.unplug()
        (kept,) = bench.pool.dead_letters
        assert kept.id == again.id != job.id
        assert len(kept.attempts) == 1


async def test_a_number_that_is_none_is_told_so_and_nothing_is_submitted() -> None:
    async with plugged() as bench:
        (job,) = await fallen(bench, Patient(), 1)
        accepted = bench.pool.ledger().accepted
        with pytest.raises(MisuseError, match="there is no dead letter 999"):
            await bench.pool.reprocess(job.id, 999)
        assert bench.pool.ledger().accepted == accepted
        assert len(bench.pool.dead_letters) == 1
        assert await bench.pool.reprocess(job.id)
        assert await bench.pool.reprocess() == []


@pytest.mark.parametrize("overflow", ["wait", "refuse", "drop oldest"])
async def test_each_leaves_when_its_new_job_is_accepted_and_waits_for_room(overflow: Any) -> None:
    patient = Patient()
    async with plugged(queue_size=3, overflow=overflow) as bench:
        jobs = await fallen(bench, patient, 3)
        patient.cured = True
        bench.pool.submit_nowait(bench.note, "takes a place")
        again = asyncio.ensure_future(bench.pool.reprocess())
        await settle()
        assert not again.done()
        assert [kept.id for kept in bench.pool.dead_letters] == [jobs[2].id]
        again.cancel()
        await settle()
        assert [kept.id for kept in bench.pool.dead_letters] == [jobs[2].id], "it stays"
        again = asyncio.ensure_future(bench.pool.reprocess())
        await bench.unplug()
        await again
        assert len(bench.pool.dead_letters) == 0
        assert bench.pool.ledger().dropped == 0


async def test_what_is_refused_stays() -> None:
    async with plugged(queue_size=1) as bench:
        await fallen(bench, Patient(), 1, wait=5)
        bench.pool.submit_nowait(bench.note, "takes the place")
        again = asyncio.ensure_future(bench.pool.reprocess())
        await bench.clock.advance(5)
        with pytest.raises(PoolFullError):
            await again
        assert len(bench.pool.dead_letters) == 1
        again = asyncio.ensure_future(bench.pool.options().submit(bench.note, "waits"))
        await bench.pool.close(0)
        with pytest.raises(PoolClosedError):
            await again
        with pytest.raises(PoolClosedError):
            await bench.pool.reprocess()
        assert len(bench.pool.dead_letters) == 1


async def test_two_who_reprocess_at_the_same_time_run_nothing_twice() -> None:
    patient = Patient()
    async with plugged(queue_size=4) as bench:
        await fallen(bench, patient, 4)
        patient.cured = True
        patient.calls.clear()
        plug = bench.pool.submit_nowait(bench.note, "takes a place")
        both = [asyncio.ensure_future(bench.pool.reprocess()) for _ in range(2)]
        await settle()
        plug.cancel()
        await bench.unplug()
        made = await asyncio.gather(*both)
        assert sorted(call[0] for call in patient.calls) == [0, 1, 2, 3]
        assert sum(map(len, made)) == 4
        assert len(bench.pool.dead_letters) == 0


async def test_one_that_was_purged_while_it_waited_for_room_is_not_run() -> None:
    patient = Patient()
    async with plugged(queue_size=2) as bench:
        await fallen(bench, patient, 2)
        patient.calls.clear()
        places = [bench.pool.submit_nowait(bench.note, number) for number in range(2)]
        again = asyncio.ensure_future(bench.pool.reprocess())
        await settle()
        assert bench.pool.dead_letters.purge() == 2
        places[0].cancel()
        await bench.unplug()
        assert len(await again) <= 1, "at most the one that waited already"
        assert len(patient.calls) <= 1


async def test_one_that_has_become_too_large_for_the_queue_stays_and_is_told_of() -> None:
    patient = Patient()
    async with plugged() as bench:
        await fallen(bench, patient, 1, size_bytes=500)
        bench.pool.reconfigure(queue_bytes=100)
        with pytest.raises(MisuseError, match="500 bytes"):
            await bench.pool.reprocess()
        assert len(bench.pool.dead_letters) == 1
