"""How many workers a pool should have, decided about loads that are made up or simulated."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.pool.scaling import (
    NEVER_S,
    Load,
    Scale,
    ScaleReason,
    ScalingSettings,
    decide,
)

DEFAULT = ScalingSettings()
NOW_S = 1000.0

bounds = st.tuples(st.integers(1, 20), st.integers(1, 20)).map(sorted)
seconds = st.integers(1, 120).map(float)


@st.composite
def any_settings(draw: st.DrawFn) -> ScalingSettings:
    least, most = draw(bounds)
    return ScalingSettings(
        workers_min=least,
        workers_max=most,
        up_at=draw(st.integers(1, 20)),
        up_wait_s=draw(seconds),
        down_at=draw(st.integers(1, 30)),
        idle_s=draw(seconds),
        up_cool_down_s=draw(st.one_of(st.just(0.0), seconds)),
        down_cool_down_s=draw(st.one_of(st.just(0.0), seconds)),
    )


@st.composite
def any_load(draw: st.DrawFn, workers: st.SearchStrategy[int] | None = None) -> Load:
    number = draw(st.integers(0, 30) if workers is None else workers)
    idle, queued = draw(st.integers(0, number)), draw(st.integers(0, 300))
    return Load(
        workers=number,
        idle=idle,
        longest_idle_s=draw(seconds) if idle else 0.0,
        overdue=draw(st.integers(0, idle)),
        queued=queued,
        oldest_wait_s=draw(seconds) if queued else 0.0,
        held_back=draw(st.booleans()),
        last_up_s=draw(st.one_of(st.just(NEVER_S), st.floats(NOW_S - 200, NOW_S))),
        last_down_s=draw(st.one_of(st.just(NEVER_S), st.floats(NOW_S - 200, NOW_S))),
    )


def busy(workers: int, **values: Any) -> Load:
    return Load(workers=workers, idle=0, **values)


def all_idle(workers: int, longest_idle_s: float, **values: Any) -> Load:
    return Load(workers=workers, idle=workers, longest_idle_s=longest_idle_s, **values)


def older(load: Load, by_s: float) -> Load:
    """The same load when nothing has happened for a while."""
    return replace(
        load,
        longest_idle_s=load.longest_idle_s + by_s if load.idle else 0.0,
        oldest_wait_s=load.oldest_wait_s + by_s if load.queued else 0.0,
    )


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (busy(2, queued=4), Scale(change=0, reason=ScaleReason.ENOUGH, again_s=1.0)),
        (busy(2, queued=5), Scale(change=1, reason=ScaleReason.QUEUE, again_s=5.0)),
        (busy(2, queued=6), Scale(change=2, reason=ScaleReason.QUEUE, again_s=5.0)),
        (busy(2, queued=900), Scale(change=2, reason=ScaleReason.QUEUE, again_s=5.0)),
        (busy(4, queued=900), Scale(change=4, reason=ScaleReason.QUEUE, again_s=5.0)),
        (busy(8, queued=900), Scale(change=2, reason=ScaleReason.QUEUE)),
        (busy(10, queued=900), Scale(change=0, reason=ScaleReason.AT_MAXIMUM)),
        (busy(10, queued=1), Scale(change=0, reason=ScaleReason.ENOUGH)),
        (
            busy(2, queued=1, oldest_wait_s=1.0),
            Scale(change=1, reason=ScaleReason.WAIT, again_s=5.0),
        ),
        (
            busy(2, queued=1, oldest_wait_s=0.75),
            Scale(change=0, reason=ScaleReason.ENOUGH, again_s=0.25),
        ),
        (
            busy(2, queued=9, last_up_s=998.0),
            Scale(change=0, reason=ScaleReason.COOLING_DOWN, again_s=3.0),
        ),
        (
            busy(2, queued=9, last_up_s=995.0),
            Scale(change=2, reason=ScaleReason.QUEUE, again_s=5.0),
        ),
        (
            busy(2, queued=1, oldest_wait_s=0.75, last_up_s=998.0),
            Scale(change=0, reason=ScaleReason.ENOUGH, again_s=3.0),
        ),
        (
            busy(2, queued=900, oldest_wait_s=60.0, held_back=True),
            Scale(change=0, reason=ScaleReason.HELD_BACK),
        ),
        (busy(4), Scale(change=0, reason=ScaleReason.ENOUGH)),
        (busy(1, queued=9, last_up_s=999.9), Scale(change=1, reason=ScaleReason.BELOW_MINIMUM)),
        (Load(workers=0), Scale(change=2, reason=ScaleReason.BELOW_MINIMUM)),
        (busy(13), Scale(change=-3, reason=ScaleReason.ABOVE_MAXIMUM)),
    ],
)
def test_workers_come_when_jobs_wait_and_nothing_else_holds_them(
    load: Load, expected: Scale
) -> None:
    decided = decide(DEFAULT, load, NOW_S)
    if expected.reason is ScaleReason.BELOW_MINIMUM and load.queued:
        expected = replace(expected, again_s=5.0)
    assert decided == expected


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (all_idle(5, 30.0), Scale(change=-1, reason=ScaleReason.IDLE, again_s=10.0)),
        (all_idle(5, 30.0, overdue=2), Scale(change=-2, reason=ScaleReason.IDLE, again_s=10.0)),
        (all_idle(5, 30.0, overdue=5), Scale(change=-3, reason=ScaleReason.IDLE)),
        (all_idle(5, 12.0), Scale(change=0, reason=ScaleReason.ENOUGH, again_s=18.0)),
        (
            all_idle(5, 25.0, last_down_s=999.0),
            Scale(change=0, reason=ScaleReason.ENOUGH, again_s=9.0),
        ),
        (
            all_idle(5, 50.0, last_down_s=996.0),
            Scale(change=0, reason=ScaleReason.COOLING_DOWN, again_s=6.0),
        ),
        (
            all_idle(5, 50.0, last_up_s=999.0, last_down_s=996.0),
            Scale(change=0, reason=ScaleReason.COOLING_DOWN, again_s=9.0),
        ),
        (all_idle(2, 500.0), Scale(change=0, reason=ScaleReason.ENOUGH)),
        (
            Load(workers=9, idle=1, longest_idle_s=90.0),
            Scale(change=0, reason=ScaleReason.ENOUGH),
        ),
        (
            Load(workers=9, idle=2, longest_idle_s=90.0, overdue=2),
            Scale(change=-2, reason=ScaleReason.IDLE),
        ),
        (
            Load(workers=9, idle=4, longest_idle_s=90.0, queued=50),
            Scale(change=0, reason=ScaleReason.ENOUGH, again_s=30.0),
        ),
        (
            Load(workers=9, idle=4, longest_idle_s=90.0, queued=50, held_back=True),
            Scale(change=-1, reason=ScaleReason.IDLE, again_s=10.0),
        ),
        (
            Load(workers=13, idle=5, last_down_s=999.9),
            Scale(change=-3, reason=ScaleReason.ABOVE_MAXIMUM, again_s=10.0),
        ),
    ],
)
def test_workers_leave_only_after_they_were_idle_for_long(load: Load, expected: Scale) -> None:
    assert decide(DEFAULT, load, NOW_S) == expected


def test_a_whole_pool_that_is_idle_shrinks_even_where_down_at_is_never_reached() -> None:
    settings = replace(DEFAULT, workers_min=1, down_at=8)
    assert decide(settings, all_idle(3, 40.0), NOW_S).change == -1
    assert decide(settings, replace(all_idle(3, 40.0), workers=4), NOW_S).change == 0


@given(settings=any_settings(), load=any_load())
def test_the_number_of_workers_stays_within_its_bounds(
    settings: ScalingSettings, load: Load
) -> None:
    decided = decide(settings, load, NOW_S)
    assert settings.workers_min <= load.workers + decided.change <= settings.workers_max
    if load.workers >= settings.workers_min:
        assert decided.change <= load.workers
    if load.workers <= settings.workers_max:
        assert -decided.change <= load.idle
    assert decided.again_s is None or 0 < decided.again_s < 1e6


@given(settings=any_settings(), load=any_load(), after_s=st.floats(0, 1e5))
def test_time_alone_changes_nothing_where_no_time_is_given(
    settings: ScalingSettings, load: Load, after_s: float
) -> None:
    workers = min(max(load.workers, settings.workers_min), settings.workers_max)
    load = replace(load, workers=workers, idle=min(load.idle, workers))
    decided = decide(settings, load, NOW_S)
    if decided.change == 0 and decided.again_s is None:
        assert decide(settings, older(load, after_s), NOW_S + after_s).change == 0


@given(settings=any_settings(), load=any_load(), is_idle=st.booleans(), share=st.floats(0, 0.99))
def test_the_time_given_is_the_one_at_which_something_changes(
    settings: ScalingSettings, load: Load, is_idle: bool, share: float
) -> None:
    workers = min(max(load.workers, settings.workers_min), settings.workers_max)
    idle_s = max(load.longest_idle_s, 1.0) if is_idle else 0.0
    load = replace(
        load,
        workers=workers,
        idle=workers if is_idle else 0,
        longest_idle_s=idle_s,
        queued=0 if is_idle else load.queued,
        held_back=False,
    )
    decided = decide(settings, load, NOW_S)
    may_change = workers > settings.workers_min if is_idle else workers < settings.workers_max
    assert (decided.change == 0 and decided.again_s is None) == (
        not may_change or (not is_idle and not load.queued)
    )
    if decided.change or decided.again_s is None:
        return
    before_s, then_s = decided.again_s * share, decided.again_s + 1e-6
    # The least timer also stands for a mere rounding error.
    if decided.again_s > 0.001:
        assert decide(settings, older(load, before_s), NOW_S + before_s).change == 0
    assert decide(settings, older(load, then_s), NOW_S + then_s).change


@given(settings=any_settings(), extra=st.integers(0, 19), one_by_one=st.booleans())
def test_an_idle_pool_that_asks_only_when_told_comes_to_its_minimum_and_to_rest(
    settings: ScalingSettings, extra: int, one_by_one: bool
) -> None:
    workers = min(settings.workers_min + extra, settings.workers_max)
    now_s, load = NOW_S, all_idle(workers, 0.0, last_up_s=NOW_S)
    surplus, asked = workers - settings.workers_min, 0
    while True:
        decided = decide(settings, load, now_s)
        asked += 1
        assert decided.change <= 0
        assert asked <= 2 * surplus + 2
        workers += decided.change
        load = replace(load, workers=workers, idle=workers)
        if decided.change:
            load = replace(load, last_down_s=now_s)
        if decided.again_s is None:
            break
        now_s += decided.again_s
        load = older(replace(load, overdue=1 if one_by_one else workers), decided.again_s)
    assert workers == settings.workers_min
    changes = surplus if one_by_one else 1
    assert now_s - NOW_S <= settings.idle_s + changes * (settings.down_cool_down_s + 0.01)


@given(load=any_load(workers=st.integers(2, 10)))
def test_no_workers_come_while_something_else_holds_jobs_back(load: Load) -> None:
    assert decide(DEFAULT, replace(load, held_back=True), NOW_S).change <= 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"workers_min": 0}, "workers_min cannot be 0; give more than 0"),
        ({"workers_min": 11}, "workers_min is 11 and workers_max only 10; give a maximum"),
        ({"up_at": -1}, "up_at cannot be -1; give more than 0"),
        ({"up_wait_s": float("nan")}, "up_wait_s cannot be nan; give more than 0"),
        ({"down_at": 0}, "down_at cannot be 0; give more than 0"),
        ({"idle_s": 0.0}, "idle_s cannot be 0.0; give more than 0"),
        ({"up_cool_down_s": -0.5}, "up_cool_down_s cannot be -0.5; give 0 or more"),
        ({"down_cool_down_s": float("inf")}, "down_cool_down_s cannot be inf; give 0 or more"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(MisuseError) as caught:
        ScalingSettings(**values)
    assert str(caught.value).startswith(message)
