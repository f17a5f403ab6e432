"""What is wrong with a pool, how bad it is and since when."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.pool.health import (
    NEVER,
    Code,
    Finding,
    Health,
    HealthBook,
    HealthSettings,
    Levels,
    Status,
    Vitals,
    findings,
)
from mailrace.pool.memory import Rung

SETTINGS = HealthSettings()
WELL = Vitals(workers=5)
HEALTHY, DEGRADED, UNHEALTHY = Status
UNIX_S = 1.8e9
TEXT: Any = "5"

FINDINGS: list[tuple[dict[str, Any], Code, Status, float, float]] = [
    # what was measured, what it is called, how bad, value, limit
    ({"queued": 1000, "queue_max": 1000}, Code.QUEUE_FULL, DEGRADED, 1000, 1000),
    ({"queued": 5000, "queue_max": 1000}, Code.QUEUE_FULL, DEGRADED, 5000, 1000),
    ({"oldest_wait_s": 60.0}, Code.QUEUE_WAIT, DEGRADED, 60.0, 60.0),
    ({"oldest_wait_s": 600.0}, Code.QUEUE_WAIT, UNHEALTHY, 600.0, 600.0),
    ({"oldest_wait_s": 900.0, "held_back": True}, Code.QUEUE_WAIT, DEGRADED, 900.0, 60.0),
    ({"overflowing": 1}, Code.OVERFLOW, DEGRADED, 1, 1),
    ({"ended": 20, "failed": 2}, Code.FAILURE_RATE, DEGRADED, 0.1, 0.1),
    ({"ended": 600, "failed": 299}, Code.FAILURE_RATE, DEGRADED, 299 / 600, 0.1),
    ({"ended": 600, "failed": 300}, Code.FAILURE_RATE, UNHEALTHY, 0.5, 0.5),
    ({"breakers_open": 3}, Code.BREAKER_OPEN, DEGRADED, 3, 1),
    ({"longest_run_s": 600.0}, Code.STUCK, DEGRADED, 600.0, 600.0),
    ({"longest_run_s": 1e9}, Code.STUCK, DEGRADED, 1e9, 600.0),
    ({"abandoned": 9}, Code.ABANDONED, DEGRADED, 9, 1),
    ({"abandoned": 10}, Code.ABANDONED, UNHEALTHY, 10, 10),
    ({"workers": 0, "queued": 1}, Code.NO_WORKERS, UNHEALTHY, 0, 1),
    ({"worker_deaths": 4}, Code.WORKER_DIED, DEGRADED, 4, 1),
    ({"worker_deaths": 5}, Code.WORKER_DIED, UNHEALTHY, 5, 5),
    (
        {"memory_rung": Rung.STOP_SOURCES, "memory_used_bytes": 8, "memory_limit_bytes": 10},
        *(Code.MEMORY, DEGRADED, 8, 10),
    ),
    ({"memory_rung": Rung.REFUSE}, Code.MEMORY, UNHEALTHY, 0, 0),
    ({"memory_rung": Rung.SHED}, Code.MEMORY, UNHEALTHY, 0, 0),
    ({"loop_lag_s": 0.1}, Code.LOOP_LAG, DEGRADED, 0.1, 0.1),
    ({"loop_lag_s": 2.5}, Code.LOOP_LAG, UNHEALTHY, 2.5, 2.0),
    ({"timer_late_s": 5.0}, Code.TIMER_LATE, UNHEALTHY, 5.0, 5.0),
    ({"paused_s": 0.0}, Code.PAUSED, DEGRADED, 0.0, 0),
    ({"sources_stopped": 1}, Code.SOURCES_STOPPED, DEGRADED, 1, 1),
    ({"closed": True}, Code.CLOSED, UNHEALTHY, 1, 1),
]


@pytest.mark.parametrize(("values", "code", "status", "value", "limit"), FINDINGS)
def test_a_number_beyond_its_limit_is_found(
    values: dict[str, Any], code: Code, status: Status, value: float, limit: float
) -> None:
    (found,) = findings(replace(WELL, **values), SETTINGS)
    assert (found.code, found.status) == (code, status)
    assert found.value == pytest.approx(value)
    assert found.limit == limit
    assert found.hint


def test_everything_that_can_be_wrong_is_found_somewhere() -> None:
    assert {code for _, code, *_ in FINDINGS} == set(Code)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"queued": 999, "queue_max": 1000},
        {"queued": 10**9},  # a queue without a bound
        {"oldest_wait_s": 59.9},
        {"oldest_wait_s": 59.9, "held_back": True},
        {"ended": 19, "failed": 19},  # too few to tell
        {"ended": 1000, "failed": 99},
        {"longest_run_s": 599.0},
        {"workers": 0},  # and nothing to do
        {"memory_used_bytes": 99, "memory_limit_bytes": 100},  # the ladder has the say
        {"loop_lag_s": 0.099},
        {"timer_late_s": 4.9},
    ],
)
def test_a_number_within_its_limit_is_not(values: dict[str, Any]) -> None:
    assert findings(replace(WELL, **values), SETTINGS) == ()


def test_a_finding_says_what_it_is_about_and_a_reason_repeats_it() -> None:
    details = {Code.STUCK: "job 7 (fetch) on worker 3, for 612 s", Code.ABANDONED: "not found"}
    found = findings(replace(WELL, longest_run_s=612.0, worker_deaths=1, details=details), SETTINGS)
    assert {one.code: one.detail for one in found} == {
        Code.STUCK: details[Code.STUCK],
        Code.WORKER_DIED: "",
    }
    reasons = HealthBook().update(found, 0.0, UNIX_S).reasons
    assert {one.code: one.detail for one in reasons} == {one.code: one.detail for one in found}


def test_waiting_is_no_fault_while_the_pool_is_paused() -> None:
    (found,) = findings(replace(WELL, oldest_wait_s=7200.0, paused_s=7200.0), SETTINGS)
    assert found.code is Code.PAUSED


@given(
    value=st.floats(0, 1e6),
    more=st.floats(0, 1e6),
    degraded=st.floats(1e-3, 1e5),
    factor=st.floats(1, 10) | st.just(NEVER),
)
def test_more_is_never_better(value: float, more: float, degraded: float, factor: float) -> None:
    settings = HealthSettings(stuck_s=Levels(degraded, degraded * factor))

    def status(seconds: float) -> Status:
        found = findings(replace(WELL, longest_run_s=seconds), settings)
        assert all(one.limit <= one.value for one in found)
        return found[0].status if found else HEALTHY

    assert status(value) <= status(value + more)
    assert status(degraded) >= DEGRADED
    assert status(degraded * 0.999) is HEALTHY


def finding(code: Code, status: Status = DEGRADED, value: float = 1.0) -> Finding:
    return Finding(code=code, status=status, value=value, limit=1.0, hint="mend it")


def test_a_condition_that_goes_on_keeps_its_beginning_even_when_it_gets_worse() -> None:
    book = HealthBook()
    book.update([finding(Code.LOOP_LAG)], 100.0, UNIX_S)
    health = book.update([finding(Code.LOOP_LAG, UNHEALTHY, 3.0)], 130.0, UNIX_S - 3600)
    (reason,) = health.reasons
    assert (reason.since_unix_s, reason.lasts_s) == (UNIX_S, 30.0)
    assert (reason.status, reason.value, reason.limit) == (UNHEALTHY, 3.0, 1.0)
    assert reason.hint == "mend it"


def test_a_condition_heals_by_itself_and_begins_anew_when_it_comes_back() -> None:
    book = HealthBook()
    book.update([finding(Code.MEMORY)], 100.0, UNIX_S)
    assert book.update([], 110.0, UNIX_S + 10) == Health(status=HEALTHY, reasons=())
    (reason,) = book.update([finding(Code.MEMORY)], 120.0, UNIX_S + 20).reasons
    assert (reason.since_unix_s, reason.lasts_s) == (UNIX_S + 20, 0.0)


def test_reasons_come_worst_first_and_then_oldest_first() -> None:
    book = HealthBook()
    book.update([finding(Code.PAUSED)], 100.0, UNIX_S)
    book.update([finding(Code.PAUSED), finding(Code.OVERFLOW)], 101.0, UNIX_S)
    health = book.update(
        [finding(Code.OVERFLOW), finding(Code.MEMORY, UNHEALTHY), finding(Code.PAUSED)],
        *(102.0, UNIX_S),
    )
    codes = [reason.code for reason in health.reasons]
    assert codes == [Code.MEMORY, Code.PAUSED, Code.OVERFLOW]
    assert health.status is UNHEALTHY


@pytest.mark.parametrize("turn", [1, -1])
def test_of_several_findings_with_one_code_the_worst_counts(turn: int) -> None:
    both = [finding(Code.BREAKER_OPEN, DEGRADED, 1), finding(Code.BREAKER_OPEN, UNHEALTHY, 2)]
    (reason,) = HealthBook().update(both[::turn], 0.0, UNIX_S).reasons
    assert (reason.status, reason.value) == (UNHEALTHY, 2)


@given(
    rounds=st.lists(
        st.dictionaries(st.sampled_from(Code), st.sampled_from([DEGRADED, UNHEALTHY])), max_size=30
    )
)
def test_a_reason_is_as_old_as_the_unbroken_row_of_its_findings(
    rounds: list[dict[Code, Status]],
) -> None:
    book = HealthBook()
    for number, found in enumerate(rounds):
        health = book.update(
            [finding(code, status) for code, status in found.items()], float(number), UNIX_S
        )
        assert health.status == max(found.values(), default=HEALTHY)
        assert {reason.code: reason.status for reason in health.reasons} == found
        for reason in health.reasons:
            begin = number
            while begin > 0 and reason.code in rounds[begin - 1]:
                begin -= 1
            assert reason.lasts_s == number - begin


@pytest.mark.parametrize(
    ("found", "ready", "live"),
    [
        ([], True, True),
        ([finding(Code.LOOP_LAG), finding(Code.ABANDONED)], True, True),
        ([finding(Code.MEMORY, UNHEALTHY), finding(Code.TIMER_LATE)], False, True),
        ([finding(Code.QUEUE_WAIT, UNHEALTHY)], False, True),
        ([finding(Code.CLOSED, UNHEALTHY)], False, True),
        ([finding(Code.LOOP_LAG, UNHEALTHY)], False, False),
        ([finding(Code.ABANDONED, UNHEALTHY)], False, False),
        ([finding(Code.TIMER_LATE, UNHEALTHY)], False, False),
    ],
)
def test_only_what_a_restart_mends_asks_for_one(
    found: list[Finding], ready: bool, live: bool
) -> None:
    health = HealthBook().update(found, 0.0, UNIX_S)
    assert (health.ready, health.live) == (ready, live)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"failure_count_min": 0}, "failure_count_min is 0;"),
        ({"failure_count_min": "20"}, "failure_count_min is '20';"),
        ({"stuck_s": 60}, "stuck_s is 60; write stuck_s=Levels(60)"),
        ({"failure_share": 0.5}, "failure_share is 0.5; write failure_share=Levels(0.5)"),
        ({"queue_wait_s": "60"}, "queue_wait_s is '60'; write queue_wait_s=Levels(degraded,"),
        ({"abandoned": None}, "abandoned is None;"),
        ({"stuck_s": Levels(TEXT)}, "stuck_s cannot be '5' for degraded and inf for unhealthy;"),
        ({"abandoned": Levels(1, TEXT)}, "abandoned cannot be 1 for degraded and '5' for"),
        ({"abandoned": Levels(True)}, "abandoned cannot be True for degraded"),
        ({"failure_share": Levels(1.5, 2.0)}, "failure_share begins at 1.5;"),
        ({"stuck_s": Levels(0.0)}, "stuck_s cannot be 0.0 for degraded and inf for unhealthy;"),
        ({"loop_lag_s": Levels(2.0, 1.0)}, "loop_lag_s cannot be 2.0 for degraded and 1.0 for"),
        ({"queue_wait_s": Levels(float("nan"))}, "queue_wait_s cannot be nan for degraded"),
        ({"abandoned": Levels(1, float("nan"))}, "abandoned cannot be 1 for degraded and nan"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(MisuseError) as caught:
        HealthSettings(**values)
    assert str(caught.value).startswith(message)
    assert caught.value.hint
