"""The settings of a pool: profiles, checks that name the field, changes that are all or none."""

import asyncio
import dataclasses
import inspect
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.pool import (
    Allowance,
    BreakerSettings,
    HealthSettings,
    JobOptions,
    MemorySettings,
    Overflow,
    PaceSettings,
    Pool,
    PoolFullError,
    PoolSettings,
    RateLimit,
    RetryBudget,
    RetryPolicy,
)
from tests.pool.plugged import plugged
from tests.support.clock import VirtualClock, settle

FIELDS = {field.name for field in dataclasses.fields(PoolSettings)}
LIMIT = RateLimit.parse("10/s")

# What stands in the feature list under E2, in its order.
PROFILE_FIELDS = (
    "workers_min",
    "workers_max",
    "queue_size",
    "idle_timeout",
    "scale_up_at",
    "scale_down_at",
    "scale_up_cool_down",
    "scale_down_cool_down",
    "metrics",
)
PROFILES = {
    "default": (PoolSettings(), (2, 10, 100, 30, 5, 2, 5, 10, True)),
    "high performance": (
        PoolSettings.high_performance(),
        (5, 50, 1000, 60, 10, 3, 2, 15, True),
    ),
    "resource constrained": (
        PoolSettings.resource_constrained(),
        (1, 5, 50, 15, 3, 1, 10, 5, False),
    ),
}


@pytest.mark.parametrize("profile", PROFILES)
def test_the_three_profiles_have_their_numbers_and_differ_in_nothing_else(profile: str) -> None:
    settings, numbers = PROFILES[profile]
    assert tuple(getattr(settings, name) for name in PROFILE_FIELDS) == numbers
    for name in FIELDS - set(PROFILE_FIELDS):
        assert getattr(settings, name) == getattr(PoolSettings(), name)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_scales_by_its_numbers(profile: str) -> None:
    settings, numbers = PROFILES[profile]
    scaling = settings.scaling()
    assert (scaling.workers_min, scaling.workers_max) == numbers[:2]
    assert (scaling.idle_s, scaling.up_at, scaling.down_at) == numbers[3:6]
    assert (scaling.up_cool_down_s, scaling.down_cool_down_s) == numbers[6:8]


@pytest.mark.parametrize("profile", PROFILES)
async def test_a_pool_of_each_profile_works(profile: str) -> None:
    settings, _ = PROFILES[profile]
    async with Pool(settings) as pool:
        assert [text async for text in pool.map(str, range(300))] == list(map(str, range(300)))
        numbers = pool.numbers()
        assert settings.workers_min <= numbers.workers <= settings.workers_max
        assert (numbers.wait is None) == (not settings.metrics)


def test_settings_are_frozen_and_complete() -> None:
    settings = PoolSettings()
    for name in FIELDS:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(settings, name, 5)
    assert not hasattr(settings, "__dict__")
    assert PoolSettings() == settings


def test_every_setting_is_described() -> None:
    text = inspect.cleandoc(PoolSettings.__doc__ or "")  # newer Pythons have done that already
    for name in FIELDS:
        assert f"\n    {name}: " in text


COUNTS_FROM_1 = ("workers_min", "workers_max", "queue_size", "scale_up_at", "scale_down_at")
COUNTS_FROM_0 = ("dead_letters", "overflow_size")
COUNTS_OR_NONE = ("queue_bytes", "abandoned_max", "recycle_after", "process_memory_max_bytes")
DURATIONS = (
    "ageing",
    "cancel_grace",
    "idle_timeout",
    "scale_down_cool_down",
    "scale_up_cool_down",
    "scale_up_wait",
)
OF_A_KIND = (
    "job",
    "pace",
    "breaker",
    "key_breaker",
    "retry_budget",
    "memory",
    "health",
    "fair_keys",
    "metrics",
)
RATES = ("rate", "key_rate", "worker_rate")

NO_COUNTS: tuple[Any, ...] = (-1, 1.0, True, False, "1", [])
NO_SPANS: tuple[Any, ...] = (0, -1.0, float("nan"), float("inf"), "5s", True, timedelta(0))
NO_OBJECTS: tuple[Any, ...] = ("yes", 5, {"a": 1}, object())
NO_RATES: tuple[Any, ...] = ("", "fast", "10", 10, 0.5, ["1/s"], "0/s")
NO_POLICIES: tuple[Any, ...] = ("drop", "WAIT", "", None, 1, [])
NO_ERRORS: tuple[Any, ...] = (None, ValueError, [ValueError], (5,), ("KeyError",), (int,))

WRONG: list[tuple[str, Any]] = [
    *((name, value) for name in COUNTS_FROM_1 for value in (*NO_COUNTS, 0, None)),
    *((name, value) for name in COUNTS_FROM_0 for value in (*NO_COUNTS, None)),
    *((name, value) for name in COUNTS_OR_NONE for value in (*NO_COUNTS, 0)),
    *((name, value) for name in DURATIONS for value in (*NO_SPANS, None)),
    *((name, value) for name in OF_A_KIND for value in NO_OBJECTS),
    *((name, None) for name in ("job", "health", "fair_keys", "metrics")),
    *((name, value) for name in RATES for value in NO_RATES),
    ("key_rate", Allowance(LIMIT)),
    ("worker_rate", Allowance(LIMIT)),
    *(("overflow", value) for value in NO_POLICIES),
    *(("breaker_ignores", value) for value in NO_ERRORS),
]


def test_every_setting_is_among_those_that_are_tried_with_wrong_values() -> None:
    assert {name for name, _ in WRONG} == FIELDS


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda value: str(value)[:30])
def test_a_wrong_value_is_an_error_that_names_its_field(name: str, value: Any) -> None:
    with pytest.raises(MisuseError) as caught:
        PoolSettings(**{name: value})
    assert caught.value.problem.startswith(f"{name} is ")
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_what_does_not_fit_together_is_refused_although_each_is_right() -> None:
    with pytest.raises(MisuseError, match="workers_min is 11 and workers_max only 10"):
        PoolSettings(workers_min=11)
    with pytest.raises(MisuseError, match="pace is set, but rate is not"):
        PoolSettings(pace=PaceSettings())
    PoolSettings(pace=PaceSettings(), rate="10/s")


def test_what_a_setting_may_be_is_taken() -> None:
    PoolSettings(
        ageing=timedelta(seconds=5),
        dead_letters=0,
        overflow_size=0,
        overflow=Overflow.SPILL,
        rate=Allowance(LIMIT),
        key_rate=LIMIT,
        worker_rate="10/s, 100/min",
        pace=PaceSettings(),
        breaker=BreakerSettings(),
        key_breaker=BreakerSettings(),
        breaker_ignores=(),
        retry_budget=RetryBudget(),
        memory=MemorySettings(),
        health=HealthSettings(),
        job=JobOptions(priority="high"),
    )


NO_PRIORITIES: tuple[Any, ...] = ("urgent", 10, -10, 0.5, True, None, [])
NO_KINDS: tuple[Any, ...] = ("coroutine", "", 5, "Thread")
NO_POLICY: tuple[Any, ...] = (3, "3", RetryPolicy)
NO_MAPPINGS: tuple[Any, ...] = (None, 5, [("a", 1)])

WRONG_OPTIONS: list[tuple[str, Any]] = [
    *(("priority", value) for value in NO_PRIORITIES),
    *(
        (name, value)
        for name in ("timeout", "deadline", "expires", "wait")
        for value in (*NO_SPANS, timedelta(seconds=-1))
    ),
    *(("kind", value) for value in NO_KINDS),
    *(("cost", value) for value in (*NO_COUNTS, 0, None)),
    *(("size_bytes", value) for value in NO_COUNTS),
    *(("retry", value) for value in NO_POLICY),
    ("key", []),
    ("key", {}),
    *(("metadata", value) for value in NO_MAPPINGS),
    ("name", 5),
    ("name", b"name"),
]


@pytest.mark.parametrize(("name", "value"), WRONG_OPTIONS, ids=lambda value: str(value)[:30])
def test_a_wrong_option_of_a_job_is_an_error_that_names_it(name: str, value: Any) -> None:
    with pytest.raises(MisuseError) as caught:
        JobOptions(**{name: value})
    assert caught.value.problem.startswith(f"{name} ")
    with pytest.raises(MisuseError):
        Pool().options(**{name: value})


def test_every_option_is_among_those_that_are_tried_with_wrong_values() -> None:
    assert {name for name, _ in WRONG_OPTIONS} == {
        field.name for field in dataclasses.fields(JobOptions)
    }


@pytest.mark.parametrize(
    ("name", "meant"),
    [("queue_sise", "queue_size"), ("worker", "workers"), ("overlow", "overflow")],
)
def test_an_unknown_setting_is_an_error_that_suggests_the_near_one(name: str, meant: str) -> None:
    makers: list[Any] = [PoolSettings().changed, Pool]
    for make in makers:
        with pytest.raises(MisuseError, match=rf"no setting '{name}'; did you mean {meant}\?"):
            make(**{name: 5})


def test_an_unknown_option_suggests_the_near_one_and_one_near_nothing_lists_them_all() -> None:
    pool: Any = Pool()
    with pytest.raises(MisuseError, match=r"no option 'timeot'; did you mean timeout\?"):
        pool.options(timeot=5)
    with pytest.raises(MisuseError, match=r"there are: .*priority, timeout, "):
        pool.options(xyz=5)


def test_changed_settings_are_others_and_the_old_ones_stay() -> None:
    before = PoolSettings(queue_size=7)
    after = before.changed(workers=3, overflow="refuse")
    assert (after.workers_min, after.workers_max, after.queue_size) == (3, 3, 7)
    assert before == PoolSettings(queue_size=7)
    assert after.changed(workers=5, workers_min=1).workers_min == 1
    with pytest.raises(MisuseError, match="workers_min is 0"):
        before.changed(workers=0)


# While running.


async def test_a_change_that_is_wrong_in_one_point_changes_nothing_at_all() -> None:
    async with plugged(queue_size=5, rate="1000000/s", fair_keys=True) as bench:
        pool = bench.pool
        for number in range(3):
            pool.submit_nowait(bench.note, number)
        for name, value in WRONG:
            before, state = pool.settings, observed(pool)
            right: dict[str, Any] = {
                "queue_size": 50,
                "workers": 7,
                "overflow": "refuse",
                "breaker": None,
            }
            with pytest.raises(MisuseError):
                pool.reconfigure(**right | {name: value})
            assert pool.settings is before
            assert observed(pool) == state
        wrongs: list[dict[str, Any]] = [
            {"queue_sise": 5},
            {"workers_min": 8},
            {"rate": None, "pace": PaceSettings()},
        ]
        for wrong in wrongs:
            with pytest.raises(MisuseError):
                pool.reconfigure(**{"queue_size": 50, **wrong})
            assert pool.settings.queue_size == 5


def observed(pool: Pool) -> tuple[object, ...]:
    """What a change would show in."""
    engine = pool.engine
    return (
        engine.settings,
        engine.intake.room,
        engine.crew.size,
        engine.backlog.ageing_s,
        engine.backlog.keyed,
        engine.gated,
        engine.picky,
        engine.gates.breaker,
        len(engine.timers),
        pool.ledger(),
    )


async def test_everything_can_be_changed_while_jobs_wait_and_run() -> None:
    changes: dict[str, Any] = {
        "workers_min": 1,
        "workers_max": 4,
        "queue_size": 7,
        "queue_bytes": 1000,
        "overflow": "refuse",
        "overflow_size": 5,
        "ageing": 3.0,
        "fair_keys": True,
        "job": JobOptions(priority="low"),
        "rate": "1000/s",
        "key_rate": "1000/s",
        "worker_rate": "1000/s",
        "pace": PaceSettings(),
        "breaker": BreakerSettings(),
        "key_breaker": BreakerSettings(),
        "breaker_ignores": (ValueError,),
        "retry_budget": RetryBudget(),
        "idle_timeout": 3.0,
        "scale_up_at": 2,
        "scale_up_wait": 3.0,
        "scale_down_at": 1,
        "scale_up_cool_down": 3.0,
        "scale_down_cool_down": 3.0,
        "cancel_grace": 3.0,
        "abandoned_max": 3,
        "recycle_after": 3,
        "process_memory_max_bytes": 10**9,
        "metrics": False,
        "dead_letters": 3,
        "memory": MemorySettings(process_max_bytes=10**12, share_of_cgroup=None),
        "health": HealthSettings(),
    }
    assert set(changes) == FIELDS
    for name, value in changes.items():
        async with plugged() as bench:
            bench.pool.submit_nowait(bench.note, "before")
            if name == "pace":
                bench.pool.reconfigure(rate="1000/s")
            original = getattr(bench.pool.settings, name)
            for now in (value, original, value):
                settings = bench.pool.reconfigure(**{name: now})
                assert getattr(settings, name) == now
                assert bench.pool.settings is settings
                assert bench.pool.ledger().balanced
            bench.pool.submit_nowait(bench.note, "after")
            await bench.unplug()
            await bench.clock.advance(1)
            assert bench.ran == ["before", "after"], name


async def test_a_change_is_there_ten_minutes_later() -> None:
    async with plugged(idle_timeout=7.0) as bench:
        bench.pool.reconfigure(queue_size=3, job=JobOptions(name="renamed"), ageing=5)
        await bench.clock.advance(600)
        assert bench.pool.settings.queue_size == 3
        assert bench.pool.settings.idle_timeout == 7.0
        jobs = [bench.pool.submit_nowait(bench.note, number) for number in range(3)]
        with pytest.raises(PoolFullError):
            bench.pool.submit_nowait(bench.note, 3)
        assert jobs[0].name == "renamed"


async def test_jobs_keep_the_options_they_were_submitted_with_and_views_theirs() -> None:
    async with plugged() as bench:
        before = bench.pool.submit_nowait(bench.note, "before")
        view = bench.pool.options(key="view")
        bench.pool.reconfigure(job=JobOptions(name="new", key="new"))
        after = bench.pool.submit_nowait(bench.note, "after")
        assert (before.key, after.key) == (None, "new")
        assert view.submit_nowait(bench.note, "view").key == "view"
        assert bench.pool.options(priority="high").submit_nowait(bench.note, "late").key == "new"


async def test_fewer_dead_letters_are_kept_from_the_change_on() -> None:
    async def fail() -> None:
        raise ValueError

    async with Pool(workers=1) as pool:
        jobs = [pool.submit_nowait(fail) for _ in range(5)]
        await pool.drain()
        pool.reconfigure(dead_letters=2)
        assert [letter.id for letter in pool.dead_letters] == [job.id for job in jobs[3:]]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "wrong"]), max_size=30))
def test_changes_under_load_are_whole_or_none(changes: list[str]) -> None:
    asyncio.run(change_under_load(changes))


async def change_under_load(changes: list[str]) -> None:
    clock = VirtualClock()
    seen: set[tuple[object, ...]] = set()
    a: dict[str, Any] = {
        "workers": 2,
        "queue_size": 20,
        "fair_keys": False,
        "ageing": 1.0,
        "rate": None,
    }
    b: dict[str, Any] = {
        "workers": 5,
        "queue_size": 50,
        "fair_keys": True,
        "ageing": 5.0,
        "rate": "1000000/s",
    }

    async def look() -> None:
        engine = pool.engine
        intake = engine.intake
        bound = intake.room + len(engine.backlog) + len(intake._coming)
        seen.add(
            (engine.crew.size, bound, engine.backlog.keyed, engine.backlog.ageing_s, engine.gated)
        )
        await asyncio.sleep(0)

    async with Pool(clock=clock, **a) as pool:
        jobs = []
        for number, change in enumerate(changes):
            for _ in range(7):
                jobs.append(await pool.options(key=number % 3).submit(look))  # noqa: PERF401
            await asyncio.sleep(0)
            if change == "wrong":
                with pytest.raises(MisuseError):
                    pool.reconfigure(**{**b, "abandoned_max": 0})
            else:
                pool.reconfigure(**(a if change == "a" else b))
            assert pool.ledger().balanced
        await clock.advance(1)
        await settle()
        assert pool.ledger().completed == len(jobs)
    assert seen <= {(2, 20, False, 1.0, False), (5, 50, True, 5.0, True)}
