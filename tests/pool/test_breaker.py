"""One breaker: when it opens, whom it lets through, what closes it."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrace.errors import ConflictError, MisuseError
from mailrace.pool.breaker import Breaker, BreakerSettings
from mailrace.pool.breaker_states import STEPS, BreakerState, BreakerStep, after

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
ILLEGAL = sorted(set(itertools.product(BreakerState, BreakerStep)) - set(STEPS))


def fail(breaker: Breaker, now_s: float, times: int = 1, chance: float = 0.0) -> None:
    for _ in range(times):
        breaker.failed(breaker.enter(now_s), now_s, chance)


def succeed(breaker: Breaker, now_s: float, times: int = 1) -> None:
    for _ in range(times):
        breaker.succeeded(breaker.enter(now_s), now_s)


def opened(now_s: float = 0.0, **settings: Any) -> Breaker:
    breaker = Breaker(BreakerSettings(**settings))
    fail(breaker, now_s, breaker.settings.failures)
    assert breaker.state_at(now_s) is OPEN
    return breaker


@pytest.mark.parametrize(("state", "step"), sorted(STEPS))
def test_a_legal_step_leads_where_the_table_says(state: BreakerState, step: BreakerStep) -> None:
    assert after(state, step) is STEPS[state, step]


@pytest.mark.parametrize(("state", "step"), ILLEGAL)
def test_any_other_step_is_refused(state: BreakerState, step: BreakerStep) -> None:
    with pytest.raises(ConflictError, match=f"{state} cannot {step}"):
        after(state, step)


def test_every_state_and_every_step_is_of_use_and_a_hand_is_never_refused() -> None:
    assert set(STEPS.values()) == {state for state, _ in STEPS} == set(BreakerState)
    assert {step for _, step in STEPS} == set(BreakerStep)
    assert {STEPS[state, BreakerStep.TRIP] for state in BreakerState} == {OPEN}
    assert {STEPS[state, BreakerStep.RESET] for state in BreakerState} == {CLOSED}


def test_it_opens_at_the_failure_that_is_one_too_many() -> None:
    breaker = Breaker(BreakerSettings(failures=3, jitter=0.0))
    fail(breaker, 1.0, 2)
    ticket = breaker.enter(2.0)
    assert breaker.state_at(2.0) is CLOSED
    assert breaker.failed(ticket, 7.0, 0.0)
    assert (breaker.state_at(7.0), breaker.opened_s, breaker.wait_s(7.0)) == (OPEN, 7.0, 30.0)
    assert breaker.state_at(36.9) is OPEN
    assert breaker.state_at(37.0) is HALF_OPEN


def test_failures_are_forgotten_after_the_window() -> None:
    breaker = Breaker(BreakerSettings(failures=3, window_s=10.0))
    for now_s in range(0, 100, 5):
        fail(breaker, now_s)
        assert breaker.state_at(now_s) is CLOSED
    fail(breaker, 96.0)
    assert breaker.state_at(96.0) is OPEN


def test_successes_do_not_make_up_for_failures_without_a_share() -> None:
    breaker = Breaker(BreakerSettings(failures=3))
    succeed(breaker, 0.0, 1000)
    fail(breaker, 1.0, 3)
    assert breaker.state_at(1.0) is OPEN


@pytest.mark.parametrize(
    ("successes", "failures", "state"),
    [(7, 3, OPEN), (8, 3, CLOSED), (3, 2, CLOSED), (1, 3, CLOSED), (2, 3, OPEN)],
)
def test_failures_have_to_be_a_share_of_enough_results(
    successes: int, failures: int, state: BreakerState
) -> None:
    breaker = Breaker(BreakerSettings(failures=3, share=0.3, calls_min=5))
    succeed(breaker, 0.0, successes)
    fail(breaker, 0.0, failures)
    assert breaker.state_at(0.0) is state


@given(calls=st.integers(1, 200), failures=st.integers(1, 200))
def test_a_share_that_is_met_exactly_is_met(calls: int, failures: int) -> None:
    failures = min(calls, failures)
    settings = BreakerSettings(failures=1, share=failures / calls)
    assert settings.opens(failures, calls - failures)
    assert not settings.opens(failures, calls - failures + 1)


def test_a_refused_entry_is_misuse_and_changes_nothing() -> None:
    breaker = opened()
    with pytest.raises(MisuseError, match="open for"):
        breaker.enter(1.0)
    assert (breaker.running, breaker.state_at(1.0)) == (0, OPEN)


@pytest.mark.parametrize("probes", [1, 3])
def test_of_a_thousand_callers_exactly_the_probes_go(probes: int) -> None:
    breaker = opened(probes=probes, probe_lease_s=60.0, break_s=30.0, jitter=0.0)
    waits_s = []
    for _ in range(1000):
        wait_s = breaker.wait_s(30.0)
        waits_s.append(wait_s)
        if wait_s == 0:
            breaker.enter(30.0)
    assert waits_s == [0.0] * probes + [60.0] * (1000 - probes)
    assert breaker.running == probes


def test_one_successful_probe_closes_it_and_its_growth_and_failures_are_forgotten() -> None:
    breaker = opened(failures=2, break_s=10.0, jitter=0.0)
    fail(breaker, 10.0)
    assert breaker.wait_s(10.0) == 20.0
    assert breaker.succeeded(breaker.enter(30.0), 31.0)
    assert (breaker.state_at(31.0), breaker.opened_s, breaker.wait_s(31.0)) == (CLOSED, None, 0.0)
    fail(breaker, 32.0)
    assert breaker.state_at(32.0) is CLOSED
    fail(breaker, 32.0)
    assert breaker.wait_s(32.0) == 10.0


def test_several_probes_may_have_to_succeed_and_one_failure_undoes_them() -> None:
    breaker = opened(probe_successes=3, break_s=10.0, jitter=0.0)
    succeed(breaker, 10.0, 2)
    assert breaker.state_at(10.0) is HALF_OPEN
    fail(breaker, 10.0)
    assert breaker.state_at(10.0) is OPEN
    succeed(breaker, 30.0, 2)
    assert breaker.state_at(30.0) is HALF_OPEN
    succeed(breaker, 30.0)
    assert breaker.state_at(30.0) is CLOSED


def test_a_cancelled_probe_makes_room_without_a_verdict() -> None:
    breaker = opened(break_s=10.0, jitter=0.0)
    ticket = breaker.enter(10.0)
    assert breaker.wait_s(11.0) > 0
    assert breaker.released(ticket)
    assert (breaker.state_at(11.0), breaker.wait_s(11.0), breaker.running) == (HALF_OPEN, 0.0, 0)
    assert breaker.enter(11.0) != ticket


@pytest.mark.parametrize("verdict", ["succeeded", "failed", "released"])
@pytest.mark.parametrize("replaced", [True, False])
def test_a_probe_that_never_returns_loses_its_lease_and_its_say(
    verdict: str, replaced: bool
) -> None:
    breaker = opened(break_s=10.0, jitter=0.0, probe_lease_s=60.0)
    lost = breaker.enter(10.0)
    assert breaker.wait_s(69.0) == 1.0
    assert breaker.wait_s(70.0) == 0.0
    if replaced:
        breaker.enter(70.0)
        assert breaker.wait_s(70.0) == 60.0
    before = breaker.wait_s(70.0)
    report(breaker, verdict, lost, 70.0)
    assert (breaker.state_at(70.0), breaker.wait_s(70.0)) == (HALF_OPEN, before)


def test_probes_that_never_return_take_no_memory() -> None:
    breaker = opened(break_s=10.0, jitter=0.0, probe_lease_s=1.0)
    for now_s in range(10, 1000):
        breaker.enter(now_s)
    assert len(breaker._probes) == 1


def report(breaker: Breaker, verdict: str, ticket: int, now_s: float) -> bool:
    match verdict:
        case "succeeded":
            return breaker.succeeded(ticket, now_s)
        case "failed":
            return breaker.failed(ticket, now_s, 0.0)
        case _:
            return breaker.released(ticket)


@pytest.mark.parametrize("verdict", ["succeeded", "failed", "released"])
@pytest.mark.parametrize("state", list(BreakerState))
def test_late_results_of_an_earlier_generation_change_nothing(
    verdict: str, state: BreakerState
) -> None:
    breaker = Breaker(BreakerSettings(failures=1, break_s=10.0, jitter=0.0))
    late = breaker.enter(0.0)
    fail(breaker, 0.0)
    now_s = 0.0
    if state is not OPEN:
        now_s = 10.0
        probe = breaker.enter(now_s)
        if state is CLOSED:
            breaker.succeeded(probe, now_s)
    generation, wait_s = breaker.generation, breaker.wait_s(now_s)
    assert not report(breaker, verdict, late, now_s)
    assert breaker.state_at(now_s) is state
    assert (breaker.generation, breaker.wait_s(now_s)) == (generation, wait_s)


def test_breaks_grow_with_failed_probes_up_to_the_longest_and_are_jittered() -> None:
    breaker = opened(break_s=10.0, break_max_s=50.0, growth=2.0, jitter=0.5)
    now_s, breaks_s = 0.0, [breaker.wait_s(0.0)]
    for chance in (0.0, 0.5, 0.0, 1.0):
        now_s += breaker.wait_s(now_s)
        fail(breaker, now_s, chance=chance)
        breaks_s.append(breaker.wait_s(now_s))
    assert breaks_s == pytest.approx([10.0, 20.0, 50.0, 50.0, 75.0])


def test_a_very_long_outage_does_not_overflow() -> None:
    assert BreakerSettings(growth=1e9).break_after_s(10**400, 0.0) == 300.0


def test_a_hand_opens_and_closes_it() -> None:
    breaker = Breaker(BreakerSettings(failures=1, jitter=0.0))
    early = breaker.enter(0.0)
    assert breaker.trip(1.0, 0.0)
    assert (breaker.state_at(1.0), breaker.opened_s, breaker.wait_s(1.0)) == (OPEN, 1.0, 30.0)
    breaker.trip(21.0, 0.0)
    assert breaker.wait_s(21.0) == 30.0
    assert breaker.reset()
    assert (breaker.state_at(21.0), breaker.opened_s) == (CLOSED, None)
    breaker.failed(early, 22.0, 0.0)
    assert breaker.state_at(22.0) is CLOSED


def test_a_reset_of_a_closed_breaker_forgets_its_failures() -> None:
    breaker = Breaker(BreakerSettings(failures=2))
    fail(breaker, 0.0)
    breaker.reset()
    fail(breaker, 0.0)
    assert breaker.state_at(0.0) is CLOSED


def test_other_settings_hold_at_once_and_keep_what_was_counted() -> None:
    breaker = Breaker(BreakerSettings(failures=5, jitter=0.0))
    fail(breaker, 0.0, 2)
    breaker.change(BreakerSettings(failures=3, jitter=0.0), 1.0)
    fail(breaker, 1.0)
    assert breaker.wait_s(1.0) == 30.0
    breaker.change(BreakerSettings(break_s=2.0, jitter=0.5), 2.0)
    assert breaker.wait_s(2.0) == 3.0
    breaker.change(BreakerSettings(break_s=100.0), 2.0)
    assert breaker.wait_s(2.0) == 3.0


def test_another_window_counts_anew() -> None:
    breaker = Breaker(BreakerSettings(failures=2))
    fail(breaker, 0.0)
    breaker.change(BreakerSettings(failures=2, window_s=10.0), 0.0)
    fail(breaker, 0.0)
    assert breaker.state_at(0.0) is CLOSED
    fail(breaker, 9.0)
    assert breaker.state_at(9.0) is OPEN


def test_fewer_probes_wait_for_those_that_are_under_way() -> None:
    breaker = opened(probes=3, break_s=10.0, jitter=0.0)
    for now_s in (10.0, 11.0, 12.0):
        breaker.enter(now_s)
    breaker.change(BreakerSettings(probes=1), 13.0)
    assert breaker.wait_s(13.0) == 12.0 + 60.0 - 13.0


@pytest.mark.parametrize(
    "wrong",
    [
        *({"failures": 0}, {"share": 1.5}, {"share": -0.1}, {"calls_min": 0}, {"window_s": 0.0}),
        *({"break_s": 0.0}, {"break_s": 301.0}, {"break_max_s": float("inf")}, {"growth": 0.9}),
        *({"jitter": -0.1}, {"jitter": float("nan")}, {"probes": 0}, {"probes": 1.5}),
        *({"probe_successes": 0}, {"probe_lease_s": -1.0}, {"window_s": "1m"}),
    ],
)
def test_nonsense_is_refused_with_advice(wrong: dict[str, Any]) -> None:
    with pytest.raises(MisuseError, match=next(iter(wrong))) as caught:
        BreakerSettings(**wrong)
    assert caught.value.hint
