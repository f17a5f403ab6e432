"""The one heap of a pool's timers: order, cancelling, and one alarm for all of them."""

import itertools
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mailrace.clock import Alarm
from mailrace.pool.timers import Timer, Timers


class HandClock:
    """A clock without a loop: whoever moves it rings the alarms."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.alarms: list[HandAlarm] = []
        self.rings = 0

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_s(self) -> float:
        return self.now_s

    async def sleep_s(self, seconds: float) -> None:
        raise AssertionError("timers do not sleep")

    def call_at_s(self, at_s: float, callback: Callable[[], object]) -> Alarm:
        alarm = HandAlarm(self, at_s, callback)
        self.alarms.append(alarm)
        return alarm

    def move_to(self, at_s: float) -> None:
        """Moves on, from alarm to alarm."""
        while self.alarms and min(alarm.at_s for alarm in self.alarms) <= at_s:
            alarm = min(self.alarms, key=lambda alarm: alarm.at_s)
            self.alarms.remove(alarm)
            self.now_s = max(self.now_s, alarm.at_s)
            self.rings += 1
            alarm.callback()
        self.now_s = max(self.now_s, at_s)


class HandAlarm:
    def __init__(self, clock: HandClock, at_s: float, callback: Callable[[], object]) -> None:
        self.clock = clock
        self.at_s = at_s
        self.callback = callback

    def cancel(self) -> None:
        if self in self.clock.alarms:
            self.clock.alarms.remove(self)


class OopsError(Exception):
    """What a callback raises."""


DELAYS_S = st.floats(-1.0, 20.0)


class TimersMachine(RuleBasedStateMachine):
    """Sets, cancels and rings timers, some of which set or cancel others, or raise."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = HandClock()
        self.timers = Timers(self.clock)
        self.order = itertools.count()
        self.pending: dict[tuple[float, int], Timer] = {}

    @rule(delay_s=DELAYS_S)
    def set(self, delay_s: float) -> None:
        self.add(delay_s, lambda: None)

    @rule(delay_s=DELAYS_S, then_s=DELAYS_S)
    def set_one_that_sets_another(self, delay_s: float, then_s: float) -> None:
        self.add(delay_s, lambda: self.add(then_s, lambda: None))

    @rule(delay_s=DELAYS_S, victim=st.integers(0, 50))
    def set_one_that_cancels_another(self, delay_s: float, victim: int) -> None:
        self.add(delay_s, lambda: self.cancel(victim))

    @rule(delay_s=DELAYS_S)
    def set_one_that_raises(self, delay_s: float) -> None:
        def oops() -> None:
            raise OopsError

        self.add(delay_s, oops)

    @precondition(lambda self: self.pending)
    @rule(which=st.integers(0, 50))
    def cancel(self, which: int) -> None:
        if self.pending:
            entry = sorted(self.pending)[which % len(self.pending)]
            timer = self.pending.pop(entry)
            timer.cancel()
            timer.cancel()

    @rule(seconds=st.floats(0.0, 15.0))
    def move(self, seconds: float) -> None:
        until_s = self.clock.now_s + seconds
        self.retrying(lambda: self.clock.move_to(until_s))
        assert all(at_s > self.clock.now_s for at_s, _ in self.pending), "one was forgotten"

    @rule(seconds=st.floats(0.0, 15.0))
    def run_due(self, seconds: float) -> None:
        self.clock.now_s += seconds  # the loop has not come round to the alarm
        self.retrying(self.timers.run_due)
        assert all(at_s > self.clock.now_s for at_s, _ in self.pending), "one was forgotten"

    @rule()
    def clear(self) -> None:
        self.timers.clear()
        for timer in self.pending.values():
            timer.cancel()  # does nothing any more
        self.pending.clear()

    def add(self, delay_s: float, action: Callable[[], object]) -> None:
        entry = self.clock.now_s + delay_s, next(self.order)

        def ring() -> None:
            assert entry in self.pending, "it rang twice, or after it was cancelled"
            assert entry == min(self.pending), "it rang before one that was due earlier"
            assert self.clock.now_s >= entry[0], "it rang too early"
            self.pending.pop(entry).cancel()  # after it rang: does nothing
            action()

        self.pending[entry] = self.timers.at(entry[0], ring)

    def retrying(self, move: Callable[[], object]) -> None:
        """What one callback raises must not keep the others from being called."""
        while True:
            try:
                move()
            except OopsError:
                continue
            return

    @invariant()
    def one_alarm_serves_all(self) -> None:
        assert len(self.timers) == len(self.pending)
        alarms = [alarm.at_s for alarm in self.clock.alarms]
        assert len(alarms) <= 1
        if self.pending:
            assert alarms[0] <= min(self.pending)[0]


TestTimersMachine = TimersMachine.TestCase
TestTimersMachine.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


@given(st.lists(st.floats(0.0, 100.0), max_size=50))
def test_timers_ring_in_the_order_of_time_and_then_of_setting(times_s: list[float]) -> None:
    clock, rung = HandClock(), list[tuple[float, int]]()
    timers = Timers(clock)
    for number, at_s in enumerate(times_s):
        timers.at(at_s, partial(rung.append, (at_s, number)))
    clock.move_to(100.0)
    assert rung == sorted((at_s, number) for number, at_s in enumerate(times_s))


def test_ten_thousand_timers_need_one_alarm_and_those_of_one_moment_one_ring() -> None:
    clock = HandClock()
    timers = Timers(clock)
    rung = list[int]()
    for number in range(10_000):
        timers.at(5.0, partial(rung.append, number))
    assert len(clock.alarms) == 1
    clock.move_to(5.0)
    assert rung == list(range(10_000))
    assert clock.rings == 1
    assert not clock.alarms


def test_cancelled_timers_do_not_pile_up() -> None:
    timers = Timers(HandClock())
    kept = [timers.at(1e6 + number, lambda: None) for number in range(10)]
    most = 0
    for number in range(10_000):
        timers.at(10.0 + number, lambda: None).cancel()
        most = max(most, len(timers._heap))
    assert len(timers) == len(kept)
    assert most < 200


def test_compaction_in_the_middle_of_ringing_loses_no_timer() -> None:
    clock = HandClock()
    timers, rung = Timers(clock), list[int]()
    doomed: list[Timer] = []

    def cancel_many() -> None:
        for timer in doomed:
            timer.cancel()

    timers.at(1.0, cancel_many)
    for number in range(500):
        at_s = 1.0 if number % 5 == 0 else 2.0
        timer = timers.at(at_s, partial(rung.append, number))
        if number % 5:
            doomed.append(timer)
    clock.move_to(3.0)
    assert rung == list(range(0, 500, 5))
    assert len(timers) == 0


def test_a_callback_that_raises_is_heard_of_and_stops_nobody() -> None:
    clock, rung = HandClock(), list[str]()
    timers = Timers(clock)

    def oops() -> None:
        raise OopsError

    timers.at(1.0, oops)
    timers.at(1.0, lambda: rung.append("same moment"))
    timers.at(2.0, lambda: rung.append("later"))
    with pytest.raises(OopsError):
        clock.move_to(3.0)
    clock.move_to(3.0)
    assert rung == ["same moment", "later"]


@pytest.mark.parametrize("before", [0, 1])
def test_an_alarm_that_could_not_be_set_keeps_no_other_from_ringing(before: int) -> None:
    clock, rung = HandClock(), list[str]()
    timers = Timers(clock)
    if before:
        timers.at(5.0, lambda: rung.append("before"))

    def no_loop(*_: object) -> Alarm:
        raise RuntimeError

    with pytest.MonkeyPatch.context() as elsewhere:
        elsewhere.setattr(clock, "call_at_s", no_loop)
        with pytest.raises(RuntimeError):
            timers.at(1.0, lambda: rung.append("refused"))
    assert len(timers) == before
    timers.at(2.0, lambda: rung.append("after"))
    clock.move_to(10.0)
    assert rung == ["after", "before"][: 1 + before]


def test_an_alarm_that_could_not_be_set_after_a_ring_is_set_with_the_next_timer() -> None:
    clock, rung = HandClock(), list[str]()
    timers = Timers(clock)
    timers.at(1.0, lambda: None)
    timers.at(2.0, lambda: rung.append("second"))

    def no_loop(*_: object) -> Alarm:
        raise RuntimeError

    with pytest.MonkeyPatch.context() as elsewhere:
        elsewhere.setattr(clock, "call_at_s", no_loop)
        with pytest.raises(RuntimeError):
            clock.move_to(1.0)
    timers.at(3.0, lambda: rung.append("third"))
    clock.move_to(5.0)
    assert rung == ["second", "third"]


def test_it_says_by_how_much_the_loop_came_late() -> None:
    clock = HandClock()
    timers = Timers(clock)
    timers.at(1.0, lambda: None)
    assert timers.late_s(0.5) == 0.0
    assert timers.late_s(1.5) == 0.5
    clock.now_s = 4.0
    timers.run_due()
    assert timers.lag_s == 3.0
    assert timers.late_s(9.0) == 0.0
