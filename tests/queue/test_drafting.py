"""From a call to a job: what is chosen goes in as it was said, each mistake has one clear line."""

import datetime as dt
import os
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.queue.drafting import Drafting, JobChoices
from mailrace.queue.jobs import DEFAULT_QUEUE, Lane, NewJob
from mailrace.queue.kinds import Handlers
from mailrace.queue.sealing import Sealer

KEY = "one:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
NOON = dt.datetime(2027, 1, 15, 12, tzinfo=dt.UTC)


class Invoice(msgspec.Struct):
    number: int
    lines: list[str] = []


async def make_invoice(invoice: Invoice) -> None: ...


async def stranger(payload: int) -> None: ...


def drafting(*, sealer: Sealer | None = None, known: bool = True) -> Drafting:
    handlers = Handlers()
    handlers.add("invoice", make_invoice, queue="billing")
    return Drafting(nonces=os.urandom, handlers=handlers if known else None, sealer=sealer)


def draft(kind: Any = "any", payload: object = None, **choices: Any) -> NewJob:
    return drafting().job(kind, payload, cast("JobChoices", choices))


def test_without_choices_a_job_is_plain() -> None:
    assert draft() == NewJob(kind="any", payload=msgspec.Raw(b"null"))
    assert draft().plain
    assert draft().queue == DEFAULT_QUEUE


def test_every_choice_goes_in() -> None:
    job = draft(
        payload={"to": 1},
        queue="q",
        tenant="t",
        priority=-4,
        delay=dt.timedelta(minutes=2),
        expires=3600,
        unique="u",
        idempotency_key="i",
        key="k",
        batch_id=7,
        tags=["a", "b"],
        attempts=3,
        lane="campaign",
    )
    assert job == NewJob(
        kind="any",
        payload=msgspec.Raw(b'{"to":1}'),
        queue="q",
        tenant="t",
        priority=-4,
        delay_ms=120_000,
        expires_in_ms=3_600_000,
        unique="u",
        idempotency="i",
        key="k",
        batch_id=7,
        tags=("a", "b"),
        attempts=3,
        lane=Lane.CAMPAIGN,
    )
    assert not job.plain


def test_all_choices_are_tested_here() -> None:
    assert set(JobChoices.__annotations__) == {
        "queue", "tenant", "priority", "delay", "run_at", "expires", "unique", "idempotency_key",
        "key", "batch_id", "tags", "attempts", "lane",
    }  # fmt: skip


def test_a_time_of_day_is_kept_in_milliseconds() -> None:
    assert draft(run_at=NOON).run_at_ms == 1_800_014_400_000
    east = NOON.astimezone(dt.timezone(dt.timedelta(hours=5)))
    assert draft(run_at=east).run_at_ms == 1_800_014_400_000


@pytest.mark.parametrize(
    ("delay", "kept"), [(0, None), (0.0, None), (dt.timedelta(), None), (0.25, 250), (90, 90_000)]
)
def test_no_delay_is_none(delay: Any, kept: int | None) -> None:
    assert draft(delay=delay).delay_ms == kept


@pytest.mark.parametrize(
    ("priority", "kept"), [("high", 5), ("normal", 0), ("low", -5), (9, 9), (-9, -9)]
)
def test_a_priority_is_a_word_or_a_number(priority: Any, kept: int) -> None:
    if isinstance(priority, str):
        assert (draft(priority=priority).priority > 0) == (kept > 0)
        assert (draft(priority=priority).priority < 0) == (kept < 0)
    else:
        assert draft(priority=priority).priority == kept


@given(text=st.text(min_size=1, max_size=500).filter(str.isprintable))
def test_any_line_of_text_is_a_name(text: str) -> None:
    for field in ("queue", "tenant", "unique", "idempotency_key", "key"):
        choices = cast("JobChoices", {field: text})
        job = drafting().job("any", None, choices)
        assert text in {job.queue, job.tenant, job.unique, job.idempotency, job.key}
    assert drafting().job("any", None, {"tags": (text,)}).tags == (text,)


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"prio": 5}, "'prio' is nothing to choose"),
    ({"delay": 5, "run_at": NOON}, "delay and run_at were both given"),
    ({"queue": ""}, "queue is ''"),
    ({"queue": 5}, "queue is 5"),
    ({"queue": None}, "queue is None"),
    ({"queue": "a\nb"}, "queue is"),
    ({"queue": "x" * 501}, "queue is"),
    ({"tenant": None}, "tenant is None"),
    ({"tenant": "\0"}, "tenant is"),
    ({"unique": ""}, "unique is ''"),
    ({"unique": 7}, "unique is 7"),
    ({"idempotency_key": ""}, "idempotency_key is ''"),
    ({"key": b"k"}, "key is b'k'"),
    ({"key": "\ud800"}, "key is"),
    ({"tags": "urgent"}, "tags is 'urgent'"),
    ({"tags": [1]}, "tags is 1"),
    ({"tags": [""]}, "tags is ''"),
    ({"tags": 5}, "tags is 5"),
    ({"priority": 10}, "priority"),
    ({"priority": -10}, "priority"),
    ({"priority": "urgent"}, "priority"),
    ({"priority": True}, "priority"),
    ({"priority": 1.5}, "priority"),
    ({"delay": -1}, "delay"),
    ({"delay": float("nan")}, "delay"),
    ({"delay": float("inf")}, "delay"),
    ({"delay": "5m"}, "delay"),
    ({"delay": True}, "delay"),
    ({"delay": False}, "delay"),
    ({"run_at": dt.datetime(2027, 1, 1)}, "run_at is"),  # noqa: DTZ001 - that is the mistake
    ({"run_at": 1_800_000_000}, "run_at is"),
    ({"run_at": "2027-01-01"}, "run_at is"),
    ({"expires": 0}, "expires"),
    ({"expires": -5}, "expires"),
    ({"expires": "1h"}, "expires"),
    ({"attempts": 0}, "attempts is 0"),
    ({"attempts": 10_001}, "attempts is 10001"),
    ({"attempts": True}, "attempts is True"),
    ({"attempts": "3"}, "attempts is '3'"),
    ({"lane": "fast"}, "lane is 'fast'"),
    ({"lane": 5}, "lane is 5"),
    ({"batch_id": "7"}, "batch_id is '7'"),
    ({"batch_id": True}, "batch_id is True"),
    ({"batch_id": -1}, "batch_id is -1"),
]


@pytest.mark.parametrize(("choices", "problem"), MISTAKES)
def test_a_mistake_has_one_clear_line(choices: dict[str, Any], problem: str) -> None:
    with pytest.raises(MisuseError) as caught:
        draft(**choices)
    assert problem in caught.value.problem
    assert "\n" not in str(caught.value)
    assert len(caught.value.problem) < 200
    assert caught.value.hint


# Kinds and payloads


def test_the_kind_says_the_queue_unless_the_call_does() -> None:
    assert draft("invoice", {"number": 1}).queue == "billing"
    assert draft(make_invoice, Invoice(1)).queue == "billing"
    assert draft(make_invoice, Invoice(1)).kind == "invoice"
    assert draft(make_invoice, Invoice(1), queue="other").queue == "other"


@pytest.mark.parametrize("payload", [{"number": "one"}, {}, None, 5, {"number": 1, "lines": [2]}])
def test_a_payload_that_its_handler_could_not_take_is_refused(payload: object) -> None:
    with pytest.raises(MisuseError, match="payload") as caught:
        draft("invoice", payload)
    assert "\n" not in caught.value.problem


def test_the_payload_of_a_kind_that_is_not_known_here_is_taken_as_it_is() -> None:
    assert draft("elsewhere", [1, {"a": None}]).payload == msgspec.Raw(b'[1,{"a":null}]')
    assert drafting(known=False).job("invoice", 5, {}).payload == msgspec.Raw(b"5")


@pytest.mark.parametrize(
    "payload", [object(), {1, object()}, float("nan"), "\ud800", b"\xff" * 2**21]
)
def test_what_json_cannot_hold_is_refused(payload: object) -> None:
    with pytest.raises(MisuseError):
        draft("any", payload)


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (stranger, "'stranger' is no handler"),
        ("", "kind is ''"),
        (None, "kind is None"),
        (5, "kind is 5"),
        ("a\nb", "kind is"),
        ("x" * 201, "kind is"),
    ],
)
def test_a_kind_is_a_name_or_a_function_that_is_registered(kind: Any, problem: str) -> None:
    with pytest.raises(MisuseError) as caught:
        draft(kind)
    assert problem in caught.value.problem


def test_a_function_needs_a_book_of_handlers() -> None:
    with pytest.raises(MisuseError, match="no handlers are known"):
        drafting(known=False).job(make_invoice, Invoice(1), {})


def test_many_payloads_share_the_choices() -> None:
    jobs = drafting().jobs(
        "invoice", [{"number": n} for n in range(3)], {"priority": 3, "tags": ("a",)}
    )
    assert [job.payload for job in jobs] == [
        msgspec.Raw(b'{"number":%d}' % number) for number in range(3)
    ]
    assert {(job.kind, job.queue, job.priority, job.tags) for job in jobs} == {
        ("invoice", "billing", 3, ("a",))
    }
    assert drafting().jobs("invoice", [], {}) == []


def test_one_bad_payload_of_many_makes_none() -> None:
    with pytest.raises(MisuseError, match="payload"):
        drafting().jobs("invoice", [{"number": 1}, {"number": "two"}], {})


def test_sealed_payloads_are_sealed_for_their_kind_each_with_its_own_nonce() -> None:
    sealer = Sealer.parse(KEY)
    jobs = drafting(sealer=sealer).jobs("invoice", [{"number": 1}] * 5, {})
    assert len({bytes(job.payload) for job in jobs}) == 5
    for job in jobs:
        assert b"number" not in bytes(job.payload)
        assert (
            msgspec.json.decode(sealer.open(bytes(job.payload), about=b"invoice"))
            == {
                "number": 1,
                "lines": [],
            }
            or sealer.open(bytes(job.payload), about=b"invoice") == b'{"number":1}'
        )


def test_a_plain_payload_that_looks_sealed_is_refused() -> None:
    sealed = drafting(sealer=Sealer.parse(KEY)).job("any", {"a": 1}, {})
    with pytest.raises(MisuseError, match="looks like a sealed one"):
        draft("any", msgspec.json.decode(bytes(sealed.payload)))
