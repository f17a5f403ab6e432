"""Jobs and results as the PostgreSQL store's statements take them."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrace.queue.jobs import Finished, NewJob
from mailrace.queue.states import JobState, Step
from mailrace.queue.stores.postgres.records import (
    completed_json,
    firsts,
    jobs_json,
    records_json,
    rest_of,
)

WORDS = st.text(alphabet=st.sampled_from('a\0\\"u0ä\n'), max_size=8)


def finished(reason: str, detail: str = "", result: object = None, lease: int = 1) -> Finished:
    raw = msgspec.Raw(msgspec.json.encode(result))
    return Finished(
        1, lease, Step.COMPLETE, JobState.COMPLETED, reason=reason, detail=detail, result=raw
    )


@given(WORDS, WORDS, WORDS)
def test_a_result_for_postgres_says_the_same_without_null_characters(
    reason: str, detail: str, result: str
) -> None:
    record = finished(reason, detail, {result: result})
    for text in (completed_json([record]), records_json([record])):
        (row,) = json.loads(text)
        assert row.get("reason", "") == reason.replace("\0", "\ufffd")
        assert row.get("detail", "") == detail.replace("\0", "\ufffd")
        value = json.loads(row["result_text"]) if "result_text" in row else row["result"]
        assert value == {result: result}
        # What stands in the text itself the server would refuse.
        assert "\0" not in str({name: row[name] for name in row if name != "result_text"})


@given(WORDS)
def test_a_payload_for_postgres_is_the_same_value(word: str) -> None:
    raw = msgspec.Raw(msgspec.json.encode([word]))
    (row,) = json.loads(jobs_json([NewJob(kind="kind", payload=raw)]))
    value = json.loads(row["payload_text"]) if "payload_text" in row else row["payload"]
    assert value == [word]


def test_a_payload_without_null_characters_is_written_for_postgres_as_it_is() -> None:
    raw = msgspec.Raw(b'{"b": 1,  "a": 2.50}')
    assert '"payload":{"b": 1,  "a": 2.50}' in jobs_json([NewJob(kind="kind", payload=raw)])


def test_of_two_results_for_postgres_of_one_claim_the_first_counts() -> None:
    one, two, other = finished("one"), finished("two"), finished("other", lease=2)
    assert firsts([one, other, two]) == [one, other]
    assert firsts([one, other]) == [one, other]


@pytest.mark.parametrize(
    ("in_doubt", "known", "step"),
    [
        (True, False, Step.LOSE), (True, True, Step.RELEASE), (False, False, Step.RELEASE),
        (False, True, Step.RELEASE),
    ],
)  # fmt: skip
def test_what_a_process_held_in_postgres_is_uncertain_only_where_that_is_so(
    *, in_doubt: bool, known: bool, step: Step
) -> None:
    (record,) = rest_of([(7, 3, in_doubt)], known=known)
    assert (record.id, record.lease, record.step) == (7, 3, step)
