"""Scaling in a simulated pool: what its decisions add up to over minutes."""

import random

import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from mailrace.pool import PoolSettings
from mailrace.pool.scaling import (
    NEVER_S,
    Load,
    Scale,
    ScaleReason,
    ScalingSettings,
    decide,
)

DEFAULT = ScalingSettings()
PROFILES = [
    profile.scaling()
    for profile in (
        PoolSettings(),
        PoolSettings.high_performance(),
        PoolSettings.resource_constrained(),
    )
]
FOREVER_S = float("inf")
seconds = st.integers(1, 120).map(float)
some_settings = st.builds(
    ScalingSettings,
    workers_min=st.integers(1, 6),
    workers_max=st.integers(6, 20),
    up_at=st.integers(1, 20),
    up_wait_s=seconds,
    down_at=st.integers(1, 12),
    idle_s=seconds,
    up_cool_down_s=seconds | st.just(0.0),
    down_cool_down_s=seconds | st.just(0.0),
)


class SimulatedPool:
    """Workers that take the job of whoever waits longest; the one used last is used first."""

    def __init__(self, settings: ScalingSettings, workers: int = 0) -> None:
        self.settings = settings
        self.idle_since_s: list[float] = [0.0] * workers  # a stack
        self.busy_until_s: list[float] = []
        self.waiting_since_s: list[float] = []
        self.up_s: list[float] = []
        self.down_s: list[float] = []
        self.held_back = False

    @property
    def workers(self) -> int:
        return len(self.idle_since_s) + len(self.busy_until_s)

    def load(self, now_s: float) -> Load:
        idle_s = [now_s - since_s for since_s in self.idle_since_s]
        return Load(
            workers=self.workers,
            idle=len(idle_s),
            longest_idle_s=max(idle_s, default=0.0),
            overdue=sum(one_s >= self.settings.idle_s for one_s in idle_s),
            queued=len(self.waiting_since_s),
            oldest_wait_s=now_s - self.waiting_since_s[0] if self.waiting_since_s else 0.0,
            held_back=self.held_back,
            last_up_s=self.up_s[-1] if self.up_s else NEVER_S,
            last_down_s=self.down_s[-1] if self.down_s else NEVER_S,
        )

    def scale(self, now_s: float) -> Scale:
        decided = decide(self.settings, self.load(now_s), now_s)
        if decided.change > 0:
            self.idle_since_s += [now_s] * decided.change
            self.up_s.append(now_s)
        if decided.change < 0:
            assert len(self.idle_since_s) >= -decided.change
            del self.idle_since_s[: -decided.change]  # those at the bottom have been idle longest
            self.down_s.append(now_s)
        return decided

    def work(self, now_s: float, takes_s: float) -> None:
        done = [until_s for until_s in self.busy_until_s if until_s <= now_s]
        self.busy_until_s = [until_s for until_s in self.busy_until_s if until_s > now_s]
        self.idle_since_s += [now_s] * len(done)
        while self.waiting_since_s and self.idle_since_s and not self.held_back:
            self.idle_since_s.pop()
            self.waiting_since_s.pop(0)
            self.busy_until_s.append(now_s + takes_s)

    def step(self, now_s: float, arriving: int, takes_s: float) -> None:
        self.waiting_since_s += [now_s] * arriving
        self.work(now_s, takes_s)
        self.scale(now_s)
        self.work(now_s, takes_s)


turns = st.lists(
    st.tuples(
        st.floats(0.1, 20.0),  # seconds until then
        st.integers(0, 40),  # jobs that come
        st.floats(0.1, 60.0),  # how long those take that begin
        st.sampled_from([False, False, False, True]),  # held back
    ),
    max_size=80,
)


@given(settings=some_settings, turns=turns)
def test_changes_keep_their_distance_whatever_happens(
    settings: ScalingSettings, turns: list[tuple[float, int, float, bool]]
) -> None:
    pool, now_s = SimulatedPool(settings), 0.0
    pool.scale(now_s)
    for pause_s, arriving, takes_s, held_back in turns:
        now_s += pause_s
        pool.held_back = held_back
        pool.step(now_s, arriving, takes_s)
        assert settings.workers_min <= pool.workers <= settings.workers_max
    apart_s = settings.up_cool_down_s - 1e-6
    assert all(b - a >= apart_s for a, b in zip(pool.up_s, pool.up_s[1:], strict=False))
    for down_s in pool.down_s:
        changes_s = [at_s for at_s in pool.up_s + pool.down_s if at_s < down_s]
        assert all(down_s - at_s >= settings.down_cool_down_s - 1e-6 for at_s in changes_s)
        # None was idle when workers came, so that each one had its idle time since.
        ups_s = [at_s for at_s in pool.up_s if at_s <= down_s]
        assert all(down_s - at_s >= settings.idle_s - 1e-6 for at_s in ups_s)


@pytest.mark.parametrize("settings", PROFILES)
def test_a_steady_load_ends_with_a_steady_number_of_workers(settings: ScalingSettings) -> None:
    pool, step_s, takes_s = SimulatedPool(settings, settings.workers_min), 0.25, 0.7
    last_changes = 0
    for step in range(4 * 1200):  # twenty minutes, at 4 to 12 jobs a second
        pool.step(step * step_s, 1 + step % 3 if settings.workers_max > 5 else 1, takes_s)
        if step == 4 * 600:
            last_changes = len(pool.up_s) + len(pool.down_s)
    assert len(pool.up_s) + len(pool.down_s) == last_changes
    assert len(pool.waiting_since_s) < settings.up_at
    assert settings.workers_min <= pool.workers <= settings.workers_max


def test_a_burst_is_met_by_doubling_and_is_given_back_after_it() -> None:
    pool, numbers = SimulatedPool(DEFAULT, DEFAULT.workers_min), list[int]()
    for second in range(240):
        pool.step(float(second), 400 if second == 10 else 0, 1.0)
        numbers.append(pool.workers)
    assert numbers[9:12] == [2, 4, 4]
    assert (numbers[15], numbers[20], max(numbers)) == (8, 10, 10)
    assert numbers[-1] == DEFAULT.workers_min
    assert not pool.waiting_since_s


class AskingPool(SimulatedPool):
    """Asks only when `decide` says it is worth asking."""

    def __init__(self, settings: ScalingSettings) -> None:
        super().__init__(settings, settings.workers_min)
        self.timer_s = FOREVER_S
        self.asked = 0
        self.reason = ScaleReason.ENOUGH

    def watch(self, now_s: float, queued: int, idle: int) -> None:
        """Looks at what has happened since so many were queued and idle."""
        queued_now, idle_now = len(self.waiting_since_s), len(self.idle_since_s)
        if queued_now > queued and not idle_now and self.workers < self.settings.workers_max:
            self.timer_s = min(self.timer_s, now_s + self.settings.up_wait_s)
            reached = queued < self.settings.up_at <= queued_now
            if reached and self.reason is not ScaleReason.COOLING_DOWN:
                self.timer_s = now_s
        reached = idle < self.settings.down_at <= idle_now or idle_now == self.workers
        if idle_now > idle and reached and self.workers > self.settings.workers_min:
            self.timer_s = min(self.timer_s, now_s + self.settings.idle_s)

    def step(self, now_s: float, arriving: int, takes_s: float) -> None:
        self.work_and_watch(now_s, takes_s)
        for _ in range(arriving):
            queued, idle = len(self.waiting_since_s), len(self.idle_since_s)
            self.waiting_since_s.append(now_s)
            self.work(now_s, takes_s)
            self.watch(now_s, queued, idle)
        if now_s >= self.timer_s:
            decided = self.scale(now_s)
            self.asked += 1
            self.reason = decided.reason
            self.timer_s = FOREVER_S if decided.again_s is None else now_s + decided.again_s
            self.work(now_s, takes_s)
            self.watch(now_s, len(self.waiting_since_s), 0)

    def work_and_watch(self, now_s: float, takes_s: float) -> None:
        queued, idle = len(self.waiting_since_s), len(self.idle_since_s)
        self.work(now_s, takes_s)
        self.watch(now_s, queued, idle)


@pytest.mark.parametrize("settings", PROFILES)
@given(seed=st.integers(0, 10**6))
@given_settings(max_examples=5, deadline=None)
def test_asking_only_when_it_is_worth_it_misses_no_change_for_long(
    settings: ScalingSettings, seed: int
) -> None:
    chance, pool, step_s = random.Random(seed), AskingPool(settings), 0.125
    steps, most = 4000, 0
    up_due_s = down_due_s = 0.0
    for step in range(steps):
        if step % 200 == 0:
            most = chance.choice([0, 0, 1, 3]) if step < steps - 1000 else 0
        now_s = step * step_s
        pool.step(now_s, chance.randint(0, most), chance.choice([0.1, 0.3, 2.0]))
        change = decide(settings, pool.load(now_s), now_s).change
        up_due_s = up_due_s + step_s if change > 0 else 0.0
        down_due_s = down_due_s + step_s if change < 0 else 0.0
        assert up_due_s <= settings.up_wait_s + step_s
        assert down_due_s <= settings.idle_s + step_s
    assert pool.asked < steps / 10
    assert pool.timer_s == FOREVER_S or pool.workers > settings.workers_min
