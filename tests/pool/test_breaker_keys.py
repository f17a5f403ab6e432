"""Breakers by key."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mailrace.pool import breaker
from mailrace.pool.breaker import Breaker, Breakers, BreakerSettings
from mailrace.pool.breaker_states import BreakerState


@pytest.fixture(scope="module", autouse=True)
def few_keys_are_forgotten_too() -> Iterator[None]:
    """Otherwise a thousand keys would have to be there before any is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(breaker, "_KEYS_MIN", 0)
        yield


SETTINGS = BreakerSettings(failures=2, break_s=10.0, jitter=0.0, window_s=60.0)


def fail(breakers: Breakers, key: object, now_s: float, times: int = 2) -> None:
    for _ in range(times):
        breakers.failed(key, breakers.enter(key, now_s), now_s, 0.0)


def test_one_key_has_no_say_in_another() -> None:
    breakers = Breakers(SETTINGS)
    fail(breakers, "down", 0.0)
    fail(breakers, "shaky", 0.0, times=1)
    assert breakers.wait_s("down", 1.0) == 9.0
    assert breakers.wait_s("shaky", 1.0) == breakers.wait_s("new", 1.0) == 0.0
    assert breakers.state_at("new", 1.0) is BreakerState.CLOSED
    assert breakers.open_keys(1.0) == {"down": BreakerState.OPEN}
    assert breakers.open_keys(10.0) == {"down": BreakerState.HALF_OPEN}


def test_asking_remembers_nothing() -> None:
    breakers = Breakers(SETTINGS)
    breakers.wait_s("a", 0.0)
    breakers.state_at("b", 0.0)
    assert not breakers.reset("c")
    assert len(breakers) == 0


def test_a_hundred_thousand_healthy_keys_are_not_kept() -> None:
    breakers = Breakers(SETTINGS)
    for key in range(100_000):
        breakers.succeeded(key, breakers.enter(key, key / 1000), key / 1000)
        assert len(breakers) <= 2


def test_what_failed_is_kept_for_the_window_and_then_forgotten() -> None:
    breakers = Breakers(SETTINGS)
    for key in range(1000):
        fail(breakers, key, 0.0, times=1)
    for now_s, kept in ((50.0, 1000), (60.0, 0)):
        for key in range(2000, 4000):
            breakers.succeeded(key, breakers.enter(key, now_s), now_s)
        assert kept <= len(breakers) <= 2 * kept + 2


def test_an_open_breaker_is_never_forgotten() -> None:
    breakers = Breakers(SETTINGS)
    fail(breakers, "down", 0.0)
    for key in range(100):
        breakers.succeeded(key, breakers.enter(key, 1e6), 1e6)
    assert breakers.open_keys(1e6) == {"down": BreakerState.HALF_OPEN}


def test_successes_are_kept_where_failures_are_a_share_of_them() -> None:
    breakers = Breakers(BreakerSettings(failures=2, share=0.5))
    for key in (*["busy"] * 10, *range(100)):
        breakers.succeeded(key, breakers.enter(key, 0.0), 0.0)
    fail(breakers, "busy", 1.0)
    assert breakers.state_at("busy", 1.0) is BreakerState.CLOSED


def test_by_hand_and_by_settings() -> None:
    breakers = Breakers(SETTINGS)
    assert breakers.trip("a", 0.0, 0.0)
    assert breakers.trip("b", 0.0, 0.0)
    assert breakers.wait_s("a", 0.0) == 10.0
    assert breakers.reset("a")
    assert breakers.wait_s("a", 0.0) == 0.0
    breakers.change(BreakerSettings(failures=1, break_s=3.0, jitter=0.0), 0.0)
    assert breakers.wait_s("b", 0.0) == 3.0
    fail(breakers, "new", 0.0, times=1)
    assert breakers.wait_s("new", 0.0) == 3.0


def test_a_cancelled_probe_makes_room_for_another() -> None:
    breakers = Breakers(SETTINGS)
    fail(breakers, "a", 0.0)
    ticket = breakers.enter("a", 10.0)
    assert breakers.wait_s("a", 10.0) == pytest.approx(60.0)
    assert breakers.released("a", ticket)
    assert breakers.wait_s("a", 10.0) == 0.0


happenings = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from(["enter", "succeed", "fail", "release"]),
        st.sampled_from([0.0, 0.0, 1.0, 15.0, 70.0]),
        st.integers(0, 5),
    ),
    max_size=100,
)


@hypothesis_settings(deadline=None)
@given(happenings=happenings, share=st.sampled_from([0.0, 0.5]))
def test_forgetting_cannot_be_noticed(
    happenings: list[tuple[str, str, float, int]], share: float
) -> None:
    """Beside breakers that are never forgotten, with many other keys passing through."""
    settings = BreakerSettings(failures=2, share=share, break_s=10.0, jitter=0.0, window_s=60.0)
    breakers, kept = Breakers(settings), {key: Breaker(settings) for key in "abc"}
    out: dict[str, list[tuple[int, int]]] = {key: [] for key in "abc"}
    now_s = 0.0
    for number, (key, happening, step_s, choice) in enumerate(happenings):
        now_s += step_s
        breakers.released(number, breakers.enter(number, now_s))
        if happening == "enter" and kept[key].wait_s(now_s) == 0:
            out[key].append((breakers.enter(key, now_s), kept[key].enter(now_s)))
        elif out[key] and happening != "enter":
            ticket, model_ticket = out[key].pop(choice % len(out[key]))
            match happening:
                case "succeed":
                    breakers.succeeded(key, ticket, now_s)
                    kept[key].succeeded(model_ticket, now_s)
                case "fail":
                    breakers.failed(key, ticket, now_s, 0.0)
                    kept[key].failed(model_ticket, now_s, 0.0)
                case _:
                    breakers.released(key, ticket)
                    kept[key].released(model_ticket)
        for each in "abc":
            assert breakers.wait_s(each, now_s) == kept[each].wait_s(now_s)
            assert breakers.state_at(each, now_s) is kept[each].state_at(now_s)


def test_a_few_keys_are_not_worth_forgetting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "_KEYS_MIN", 100)
    breakers = Breakers(SETTINGS)
    for key in range(10_000):
        breakers.succeeded(key, breakers.enter(key, key), key)
    assert 98 <= len(breakers) <= 100
