"""Whether a failed attempt is followed by another one."""

import asyncio
import pickle
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrace.errors import MailraceError, MisuseError, RejectedError, UnavailableError
from mailrace.pool.budget import RetryBudget
from mailrace.pool.retry import (
    Backoff,
    GiveUp,
    GiveUpReason,
    RetryAt,
    RetryLaterError,
    RetryPolicy,
    RetrySchedule,
    asked_delay_s,
)

SCHEDULE = RetryPolicy(delays=RetrySchedule((10.0, 20.0)))


class AskingError(Exception):
    def __init__(self, retry_after: object) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


def decision(
    error: BaseException,
    policy: RetryPolicy = SCHEDULE,
    attempts: int = 1,
    deadline_s: float | None = None,
    budget: RetryBudget | None = None,
) -> RetryAt | GiveUp:
    return policy.decide(
        attempts, error, now_s=100.0, deadline_s=deadline_s, chance=0.5, budget=budget
    )


@given(
    policy=st.builds(
        RetryPolicy,
        delays=st.one_of(
            st.builds(RetrySchedule, st.lists(st.floats(0, 1e6), max_size=5).map(tuple)),
            st.builds(
                Backoff, attempts=st.integers(1, 5), jitter=st.sampled_from(["full", "none"])
            ),
        ),
    ),
    attempts=st.integers(1, 6),
    asked=st.one_of(st.none(), st.integers(0, 100), st.floats(0, 1e6)),
    now_s=st.floats(0, 1e6),
    left_s=st.one_of(st.none(), st.floats(-10, 1e6)),
    chance=st.floats(0, 1),
    paid=st.one_of(st.none(), st.booleans()),
)
def test_a_retry_keeps_every_limit_and_nothing_else_stops_it(
    *,
    policy: RetryPolicy,
    attempts: int,
    asked: float | None,
    now_s: float,
    left_s: float | None,
    chance: float,
    paid: bool | None,
) -> None:
    budget = None if paid is None else RetryBudget(share=1.0, least_per_s=0.0)
    if budget is not None and paid:
        budget.attempted(now_s)
    deadline_s = None if left_s is None else now_s + left_s
    decided = policy.decide(
        attempts,
        AskingError(asked),
        now_s=now_s,
        deadline_s=deadline_s,
        chance=chance,
        budget=budget,
    )
    delay_s = policy.delays.delay_s(attempts, chance)
    due_s = now_s + (asked if asked is not None else delay_s or 0.0)
    late = deadline_s is not None and due_s >= deadline_s
    if delay_s is None:
        assert decided == GiveUp(reason=GiveUpReason.ATTEMPTS)
    elif late:
        assert decided == GiveUp(reason=GiveUpReason.DEADLINE)
    elif paid is False:
        assert decided == GiveUp(reason=GiveUpReason.BUDGET)
    else:
        assert decided == RetryAt(at_s=due_s)
    if budget is not None and paid:
        assert budget.spend(now_s) is isinstance(decided, GiveUp), "spent for nothing, or not spent"


def test_a_retry_that_would_begin_at_the_deadline_is_given_up() -> None:
    assert decision(OSError(), deadline_s=110.0) == GiveUp(reason=GiveUpReason.DEADLINE)
    assert decision(OSError(), deadline_s=110.001) == RetryAt(at_s=110.0)


@pytest.mark.parametrize("asked_s", [3.0, 300.0])
def test_what_the_error_asks_for_wins_over_the_schedule(asked_s: float) -> None:
    assert decision(AskingError(asked_s)) == RetryAt(at_s=100.0 + asked_s)
    assert decision(RetryLaterError(asked_s)) == RetryAt(at_s=100.0 + asked_s)


def test_what_the_error_asks_for_brings_no_attempt_more() -> None:
    assert decision(RetryLaterError(1.0), attempts=3) == GiveUp(reason=GiveUpReason.ATTEMPTS)


@pytest.mark.parametrize(
    "error", [MisuseError("x"), RejectedError("x"), asyncio.CancelledError(), KeyboardInterrupt()]
)
def test_some_errors_are_permanent(error: BaseException) -> None:
    assert decision(error) == GiveUp(reason=GiveUpReason.PERMANENT)


@pytest.mark.parametrize("error", [UnavailableError("x"), OSError(), ValueError(), TimeoutError()])
def test_other_errors_are_not(error: Exception) -> None:
    assert isinstance(decision(error), RetryAt)


def test_only_the_named_errors_are_retried_and_never_is_stronger() -> None:
    policy = RetryPolicy(retry_on=(OSError,), never_on=(ConnectionError,))
    assert isinstance(decision(TimeoutError(), policy), RetryAt)
    assert decision(ConnectionResetError(), policy) == GiveUp(reason=GiveUpReason.PERMANENT)
    assert decision(ValueError(), policy) == GiveUp(reason=GiveUpReason.PERMANENT)
    assert decision(AskingError(1), policy) == GiveUp(reason=GiveUpReason.PERMANENT)
    assert decision(RetryLaterError(5.0), policy) == RetryAt(at_s=105.0)
    never = RetryPolicy(never_on=(MailraceError,))
    assert decision(RetryLaterError(5.0), never) == GiveUp(reason=GiveUpReason.PERMANENT)


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [(0, 0.0), (7, 7.0), (2.5, 2.5), (timedelta(minutes=2), 120.0), (timedelta(0), 0.0)],
)
def test_a_delay_is_read_from_the_error(asked: object, seconds: float) -> None:
    assert asked_delay_s(AskingError(asked)) == seconds


@pytest.mark.parametrize(
    "asked",
    [
        *(-1, -0.5, float("nan"), float("inf"), 10**400, True, None, "5", b"5", [5], object()),
        *(timedelta(seconds=-1), "Wed, 21 Oct 2015 07:28:00 GMT"),
    ],
)
def test_anything_else_asks_for_nothing(asked: object) -> None:
    assert asked_delay_s(AskingError(asked)) is None
    assert asked_delay_s(OSError()) is None
    assert decision(AskingError(asked)) == RetryAt(at_s=110.0)


def test_a_handler_says_when_and_why() -> None:
    error = RetryLaterError(90.0, "the mailbox is locked")
    assert str(error) == "the mailbox is locked"
    assert str(RetryLaterError(90)) == "to be run again in 90 s"
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.retry_after, copy.reason, str(copy)) == (90.0, error.reason, str(error))


@pytest.mark.parametrize("after_s", [-1.0, float("nan"), float("inf"), "5", None])
def test_a_handler_that_asks_for_nonsense_is_told(after_s: Any) -> None:
    with pytest.raises(MisuseError, match="after_s"):
        RetryLaterError(after_s)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"delays": 5}, {"retry_on": OSError}, {"retry_on": ("OSError",)}),
        *({"never_on": [OSError]}, {"never_on": (OSError(),)}),
    ],
)
def test_nonsense_is_refused_with_advice(wrong: dict[str, Any]) -> None:
    with pytest.raises(MisuseError, match=next(iter(wrong))) as caught:
        RetryPolicy(**wrong)
    assert caught.value.hint
