"""How many processes there are to be: up when hands are full and jobs wait, down when idle."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.queue.figures import QueueFigures, Throughput
from mailrace.queue.processes import ProcessRow, ProcessState, Vitals
from mailrace.queue.staffing import (
    Decision,
    Load,
    StaffingReason,
    StaffingSettings,
    StaffingState,
    decide,
    load_of,
)

SETTINGS = StaffingSettings(
    processes_min=1,
    processes_max=8,
    wait_up_s=10.0,
    wait_down_s=60.0,
    up_cool_down_s=15.0,
    down_cool_down_s=30.0,
)
BUSY = Load(processes=4, working=4, hands=80, in_hand=80, due=5, oldest_due_s=11.0)
IDLE = Load(processes=4, working=4, hands=80)
LONG_AGO = StaffingState(changed_s=0.0)
NOW_S = 1000.0


def after(load: Load, settings: StaffingSettings = SETTINGS, **state: Any) -> tuple[int, str]:
    decision = decide(load, settings, NOW_S, replace(LONG_AGO, **state))
    return decision.processes, decision.reason


# Up


def test_a_job_that_waits_too_long_while_all_hands_are_full_brings_more() -> None:
    assert after(BUSY) == (6, StaffingReason.WAIT)
    assert after(replace(BUSY, oldest_due_s=10.0)) == (4, StaffingReason.ENOUGH)
    assert after(replace(BUSY, due=0)) == (4, StaffingReason.ENOUGH)


def test_jobs_that_wait_beside_free_hands_bring_nobody() -> None:
    assert after(replace(BUSY, in_hand=64)) == (6, StaffingReason.WAIT)
    assert after(replace(BUSY, in_hand=63)) == (4, StaffingReason.ENOUGH)
    assert after(replace(BUSY, hands=0, in_hand=0, working=0)) == (4, StaffingReason.ENOUGH)


def test_while_some_are_still_starting_no_more_are_started() -> None:
    assert after(replace(BUSY, working=3)) == (4, StaffingReason.ENOUGH)


def test_throughput_below_the_target_brings_more() -> None:
    settings = replace(SETTINGS, target_per_hour=10_000.0)
    slow = replace(BUSY, oldest_due_s=1.0, ended_per_hour=9_999.0)
    assert after(slow, settings) == (6, StaffingReason.TARGET)
    assert after(slow) == (4, StaffingReason.ENOUGH)
    assert after(replace(slow, ended_per_hour=10_000.0), settings)[0] == 4
    assert after(replace(slow, due=0), settings)[0] == 4
    assert after(replace(slow, in_hand=10), settings)[0] == 4


def test_a_change_is_given_the_time_to_show_in_the_throughput() -> None:
    settings = replace(SETTINGS, target_per_hour=10_000.0)
    slow = replace(BUSY, oldest_due_s=1.0)
    assert after(slow, settings, changed_s=NOW_S - 119.0)[0] == 4
    assert after(slow, settings, changed_s=NOW_S - 120.0)[0] == 6


def test_there_are_never_more_than_the_maximum() -> None:
    assert after(replace(BUSY, processes=7, working=7)) == (8, StaffingReason.WAIT)
    assert after(replace(BUSY, processes=8, working=8)) == (8, StaffingReason.AT_MAXIMUM)


def test_no_change_follows_another_within_the_cool_down() -> None:
    assert after(BUSY, changed_s=NOW_S - 14.9) == (4, StaffingReason.COOLING_DOWN)
    assert after(BUSY, changed_s=NOW_S - 15.0) == (6, StaffingReason.WAIT)
    since_s = NOW_S - 61.0
    early = after(IDLE, changed_s=NOW_S - 29.9, spare_since_s=since_s)
    assert early == (4, StaffingReason.COOLING_DOWN)
    late = after(IDLE, changed_s=NOW_S - 30.0, spare_since_s=since_s)
    assert late == (3, StaffingReason.SPARE)


# Down


def test_one_leaves_when_nothing_was_due_and_hands_were_idle_for_long() -> None:
    assert after(IDLE, spare_since_s=NOW_S - 60.0) == (3, StaffingReason.SPARE)
    assert after(IDLE, spare_since_s=NOW_S - 59.9) == (4, StaffingReason.ENOUGH)
    assert after(IDLE, spare_since_s=None) == (4, StaffingReason.ENOUGH)
    assert after(replace(IDLE, due=1), spare_since_s=0.0) == (4, StaffingReason.ENOUGH)


def test_nobody_leaves_whose_work_would_fill_the_hands_of_the_others() -> None:
    assert after(replace(IDLE, in_hand=30), spare_since_s=0.0)[0] == 3
    assert after(replace(IDLE, in_hand=31), spare_since_s=0.0)[0] == 4


def test_a_moment_of_work_begins_the_wait_anew() -> None:
    state = decide(IDLE, SETTINGS, 100.0, LONG_AGO).state
    assert state.spare_since_s == 100.0
    assert decide(IDLE, SETTINGS, 130.0, state).state.spare_since_s == 100.0
    state = decide(replace(IDLE, due=1), SETTINGS, 140.0, state).state
    assert state.spare_since_s is None
    assert decide(IDLE, SETTINGS, 150.0, state).state.spare_since_s == 150.0


def test_a_clock_may_begin_at_zero() -> None:
    state = decide(IDLE, SETTINGS, 0.0, StaffingState()).state
    assert state.spare_since_s == 0.0
    assert decide(IDLE, SETTINGS, 60.0, state).processes == 3


def test_the_bounds_hold_at_once() -> None:
    settings = replace(SETTINGS, processes_min=3, processes_max=5)
    hot = StaffingState(changed_s=NOW_S)
    assert decide(replace(IDLE, processes=1), settings, NOW_S, hot).processes == 3
    assert decide(replace(BUSY, processes=9), settings, NOW_S, hot).processes == 5
    assert after(replace(IDLE, processes=3), settings, spare_since_s=0.0)[0] == 3


# Any course of things

loads = st.builds(
    Load,
    processes=st.just(0),
    working=st.integers(0, 12),
    hands=st.integers(0, 40),
    in_hand=st.integers(0, 40),
    due=st.integers(0, 3),
    oldest_due_s=st.floats(0, 30),
    ended_per_hour=st.floats(0, 20_000),
)
settings_of_any_kind = st.builds(
    StaffingSettings,
    processes_min=st.integers(1, 4),
    processes_max=st.integers(4, 12),
    wait_up_s=st.floats(1, 20),
    wait_down_s=st.floats(1, 60),
    target_per_hour=st.none() | st.floats(1, 20_000),
    up_cool_down_s=st.floats(0, 60),
    down_cool_down_s=st.floats(0, 60),
)


@given(
    settings=settings_of_any_kind,
    course=st.lists(st.tuples(st.floats(0.1, 40), loads), min_size=1, max_size=60),
    begin=st.integers(1, 12),
)
def test_it_stays_within_its_bounds_and_never_swings_within_the_cool_downs(
    settings: StaffingSettings, course: list[tuple[float, Load]], begin: int
) -> None:
    now_s, state, processes = 0.0, StaffingState(), begin
    changed_s: float | None = None
    for passed_s, load in course:
        now_s += passed_s
        decision = decide(replace(load, processes=processes), settings, now_s, state)
        assert settings.processes_min <= decision.processes <= settings.processes_max
        change = decision.processes - processes
        if change and changed_s is not None:
            cool_s = settings.up_cool_down_s if change > 0 else settings.down_cool_down_s
            assert now_s - changed_s >= cool_s
            assert change >= -1
        if change > 0 and settings.processes_min <= processes:
            assert load.due
            assert load.in_hand >= load.hands * 0.8
        if change < 0 and processes <= settings.processes_max:
            assert not load.due
        changed_s = now_s if change else changed_s
        processes, state = decision.processes, decision.state


@given(settings=settings_of_any_kind, load=loads, processes=st.integers(1, 12))
def test_what_stays_the_same_comes_to_rest(
    settings: StaffingSettings, load: Load, processes: int
) -> None:
    """An unchanged world, and hands in proportion, moves the number one way only."""
    state, now_s, numbers = StaffingState(), 0.0, [processes]
    for _ in range(400):
        now_s += 30.0
        seen = replace(
            load,
            processes=numbers[-1],
            working=numbers[-1],
            hands=20 * numbers[-1],
            in_hand=min(load.in_hand, 20 * numbers[-1]),
            due=load.due if load.in_hand > 20 * numbers[-1] else 0,
        )
        decision: Decision = decide(seen, settings, now_s, state)
        numbers.append(decision.processes)
        state = decision.state
    steps = [later - earlier for earlier, later in pairwise(numbers[1:])]
    assert all(step >= 0 for step in steps) or all(step <= 0 for step in steps)
    assert numbers[-20:] == numbers[-1:] * 20


# Settings and figures


@pytest.mark.parametrize(
    "wrong",
    [
        {"processes_min": 0},
        {"processes_min": 3, "processes_max": 2},
        {"wait_up_s": 0.0},
        {"wait_down_s": float("nan")},
        {"target_per_hour": -1.0},
        {"up_cool_down_s": -0.1},
        {"down_cool_down_s": float("inf")},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(MisuseError, match=next(iter(wrong))):
        StaffingSettings(**wrong)


def row(in_hand: int, state: ProcessState = ProcessState.WORKING, **fields: Any) -> ProcessRow:
    vitals = Vitals(state=state, in_hand=in_hand)
    row = ProcessRow(id=1, journal="j", expires_ms=0, concurrency=20, vitals=vitals)
    return replace_row(row, **fields)


def replace_row(row: ProcessRow, **fields: Any) -> ProcessRow:
    return ProcessRow(**{name: getattr(row, name) for name in row.__struct_fields__} | fields)


def test_the_load_is_that_of_its_own_queues_and_of_processes_that_work() -> None:
    minute_ms = 1_800_000_000_000
    figures = [
        QueueFigures(queue="mail", counts={}, due=5, oldest_due_ms=2500),
        QueueFigures(queue="other", counts={}, due=7, oldest_due_ms=9000),
        QueueFigures(queue="quiet", counts={}, due=0, oldest_due_ms=0),
    ]
    throughput = [
        Throughput(queue=queue, start_ms=minute_ms + at_ms, completed=ended, failed=1, retried=50)
        for queue, at_ms, ended in (
            ("mail", -60_000, 1000), ("mail", 0, 2), ("mail", 60_000, 4000), ("other", 0, 8),
        )
    ]  # fmt: skip
    rows = [
        row(3), row(5), row(7, ProcessState.DRAINING), row(9, ProcessState.PAUSED),
        row(11, expired=True),
    ]  # fmt: skip
    now_ms = minute_ms + 60_000 + 7
    one = load_of(["mail", "quiet"], figures, throughput, rows, processes=4, now_ms=now_ms)
    assert one == Load(
        processes=4, working=2, hands=40, in_hand=8, due=5, oldest_due_s=2.5,
        ended_per_hour=180.0,
    )  # fmt: skip
    every = load_of(["*"], figures, throughput, rows, processes=4, now_ms=now_ms)
    assert (every.due, every.oldest_due_s, every.ended_per_hour) == (12, 9.0, 720.0)
