"""Whose turn it is: shares, room, turns and ageing, whatever the flows look like."""

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import inf

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.queue.deal import Dealer, Room
from mailrace.queue.flows import Flow, Want

QUEUES = ("a", "b", "c")
TENANTS = ("", "t1", "t2", "t3")
FLOWS = st.lists(
    st.builds(
        Flow,
        st.sampled_from(QUEUES),
        st.sampled_from(TENANTS),
        st.integers(-9, 9),
        st.integers(-100_000, 1_000_000),
    ),
    max_size=20,
    unique_by=lambda flow: (flow.queue, flow.tenant, flow.priority),
)
WEIGHTS = st.dictionaries(st.sampled_from((*QUEUES, "*")), st.floats(0.01, 100))
ROOMS = st.dictionaries(
    st.tuples(st.sampled_from(QUEUES), st.sampled_from(TENANTS)),
    st.one_of(st.integers(0, 40), st.just(inf)),
)
JOBS = st.integers(1, 300)


def room_of(rooms: Mapping[tuple[str, str], float]) -> Room:
    return lambda queue, tenant: rooms.get((queue, tenant), inf)


def ageing(_queue: str) -> float:
    return 60.0


def deal(
    dealer: Dealer,
    flows: Sequence[Flow],
    jobs: int,
    room: Room = lambda _queue, _tenant: inf,
    *,
    since_ms: float = 0.0,
    ageing_s: Callable[[str], float] = ageing,
) -> list[Want]:
    return dealer.deal(flows, jobs, since_ms=since_ms, ageing_s=ageing_s, room=room)


@given(weights=WEIGHTS, rounds=st.lists(st.tuples(FLOWS, ROOMS, JOBS), min_size=1, max_size=6))
def test_a_deal_gives_what_there_is_room_for_and_no_more(
    weights: dict[str, float],
    rounds: list[tuple[list[Flow], dict[tuple[str, str], float], int]],
) -> None:
    dealer = Dealer(weights)
    for flows, rooms, jobs in rounds:
        wants = deal(dealer, flows, jobs, room_of(rooms))
        due = {(flow.queue, flow.tenant, flow.priority) for flow in flows if flow.waited_ms >= 0}
        assert {(want.queue, want.tenant, want.priority) for want in wants} <= due
        places = Counter((want.queue, want.tenant) for want in wants)
        assert set(places.values()) <= {1}
        assert all(1 <= want.jobs <= rooms.get((want.queue, want.tenant), inf) for want in wants)
        room = sum(rooms.get(place, inf) for place in {(queue, tenant) for queue, tenant, _ in due})
        assert sum(want.jobs for want in wants) == min(jobs, room)


@given(flow=st.lists(FLOWS, min_size=1).map(itertools.chain.from_iterable).map(list), jobs=JOBS)
def test_one_flow_alone_is_dealt_as_one_among_others(flow: list[Flow], jobs: int) -> None:
    """The short way that the hot path takes, against the general one."""
    for one in flow:
        for room in (0, 1, 7, inf):
            rooms = room_of({(one.queue, one.tenant): room})
            not_due = Flow("other", "", 0, -1)
            alone = deal(Dealer({}), [one], jobs, rooms)
            assert alone == deal(Dealer({}), [one, not_due], jobs, rooms)


@given(flows=FLOWS, jobs=JOBS, since_ms=st.integers(0, 200_000))
def test_a_flow_is_due_when_the_time_since_the_survey_has_made_it_so(
    flows: list[Flow], jobs: int, since_ms: int
) -> None:
    later = [msgspec.structs.replace(flow, waited_ms=flow.waited_ms + since_ms) for flow in flows]
    assert deal(Dealer({}), flows, jobs, since_ms=since_ms) == deal(Dealer({}), later, jobs)


@given(
    weights=st.dictionaries(st.sampled_from(QUEUES), st.integers(1, 20), min_size=2),
    deals=st.lists(JOBS, min_size=1, max_size=40),
)
def test_queues_get_shares_by_weight_within_one_portion(
    weights: dict[str, int], deals: list[int]
) -> None:
    dealer = Dealer(weights)
    flows = [Flow(queue, "", 0, 5) for queue in weights]
    got: Counter[str] = Counter()
    for jobs in deals:
        for want in deal(dealer, flows, jobs):
            got[want.queue] += want.jobs
    portion = max(1, max(deals) // 32)
    passes = [got[queue] / weight for queue, weight in weights.items()]
    # The furthest ahead got its last portion when it was the furthest behind.
    assert max(passes) - min(passes) <= portion / min(weights.values()) + 1e-6


def test_a_star_stands_for_every_queue_that_is_not_named() -> None:
    dealer = Dealer({"big": 3, "*": 1})
    flows = [Flow(queue, "", 0, 0) for queue in ("big", "one", "two")]
    got = {want.queue: want.jobs for want in deal(dealer, flows, 500)}
    assert got["big"] == pytest.approx(300, abs=16)
    assert got["one"] == pytest.approx(100, abs=16)


def test_a_queue_that_had_nothing_to_do_has_no_claim_on_the_past() -> None:
    dealer = Dealer({})
    both = [Flow("busy", "", 0, 0), Flow("rare", "", 0, 0)]
    busy = [Flow("busy", "", 0, 0), Flow("busy", "other", 0, 0)]
    deal(dealer, both, 100)
    for _ in range(100):
        deal(dealer, busy, 100)
    got = {want.queue: want.jobs for want in deal(dealer, both, 100)}
    assert got["busy"] == pytest.approx(50, abs=4)


@given(
    tenants=st.integers(2, 30),
    deals=st.lists(JOBS, min_size=1, max_size=30),
)
def test_tenants_get_the_same_within_one(tenants: int, deals: list[int]) -> None:
    dealer = Dealer({})
    flows = [Flow("queue", f"t{number}", 0, number) for number in range(tenants)]
    got = dict.fromkeys((flow.tenant for flow in flows), 0)
    for jobs in deals:
        for want in deal(dealer, flows, jobs):
            got[want.tenant] += want.jobs
    assert max(got.values()) - min(got.values()) <= 1


def test_a_tenant_with_a_million_jobs_or_with_no_room_costs_the_others_nothing() -> None:
    """The survey does not even say how many there are; neither the age nor the order counts."""
    dealer = Dealer({})
    flows = [Flow("queue", tenant, 0, 10**9 * (tenant == "huge")) for tenant in ("a", "huge", "z")]
    got: Counter[str] = Counter()
    for _ in range(10):
        for want in deal(dealer, flows, 30, room_of({("queue", "huge"): 0})):
            got[want.tenant] += want.jobs
    assert got == {"a": 150, "z": 150}
    for _ in range(10):
        for want in deal(dealer, flows, 30):
            got[want.tenant] += want.jobs
    assert got == {"a": 250, "z": 250, "huge": 100}


def test_what_one_has_no_room_for_goes_to_the_others() -> None:
    rooms = room_of({("queue", "a"): 3, ("other", ""): 1})
    flows = [Flow("queue", "a", 0, 0), Flow("queue", "b", 0, 0), Flow("other", "", 0, 0)]
    wants = deal(Dealer({"other": 1000}), flows, 100, rooms)
    assert {(want.queue, want.tenant): want.jobs for want in wants} == {
        ("queue", "a"): 3,
        ("queue", "b"): 96,
        ("other", ""): 1,
    }


@given(
    high=st.integers(-8, 9),
    below=st.integers(1, 18),
    ageing_s=st.floats(0.1, 600),
    every_s=st.floats(0.01, 5),
)
def test_a_low_priority_is_served_when_it_has_waited_and_not_before(
    high: int, below: int, ageing_s: float, every_s: float
) -> None:
    """Against ones of high priority that keep coming and never wait."""
    low = high - below
    dealer, due_s = Dealer({}), below * ageing_s
    for turn in range(max(0, int(due_s / every_s) - 3), int(due_s / every_s) + 3):
        waited_s = turn * every_s
        flows = [Flow("q", "", high, 0), Flow("q", "", low, int(waited_s * 1000))]
        (want,) = deal(dealer, flows, 1, ageing_s=lambda _: ageing_s)
        if waited_s > due_s + 0.002:
            assert want.priority == low
            return
        if waited_s < due_s - 0.002:
            assert want.priority == high
    pytest.fail("it was never served")


def test_priority_decides_within_a_tenant_and_not_between_tenants() -> None:
    flows = [
        Flow("q", "a", 9, 0),
        Flow("q", "a", 0, 0),
        Flow("q", "b", -9, 0),
        Flow("q", "b", -8, -5),
    ]
    wants = deal(Dealer({}), flows, 10)
    assert wants == [Want("q", "a", 9, 5), Want("q", "b", -9, 5)]


@pytest.mark.parametrize("weight", [0, -1, inf, float("nan")])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(MisuseError, match="weight of queue 'q'"):
        Dealer({"q": weight})
