"""How often a process tells that it lives, and looks whether others do."""

import asyncio
import math
import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailrace.errors import MisuseError
from mailrace.jobs import Handlers, WorkerSettings
from mailrace.queue.heartbeat import check_lease, heartbeat_of
from mailrace.queue.processes import NewProcess, Vitals
from mailrace.queue.session import LEASE_S, Session
from tests.queue.world import World

# Sooner than the default one comes.
SOON_S = 4.0


class Renewals:
    """Counts those of a store; `enough` is set by the third."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.enough = threading.Event()
        monkeypatch.setattr(world.store, "renewer", self.renewer)

    def renewer(self, process_id: int, lease_s: float) -> Callable[[Vitals], bool]:
        return self.renew

    def renew(self, vitals: Vitals) -> bool:
        self.count += 1
        if self.count == 3:
            self.enough.set()
        return True


async def test_a_lease_is_renewed_with_every_heartbeat(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewals = Renewals(world, monkeypatch)
    session = await Session.open(
        world.store, world.place, name=uuid4(), clock=world.clock,
        process=NewProcess(journal=""), lease_s=1000.0, heartbeat_s=0.01,
    )  # fmt: skip
    assert await asyncio.to_thread(renewals.enough.wait, SOON_S)
    await session.close(keep_journal=False)


async def test_a_worker_sends_heartbeats_as_it_is_set_to(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewals = Renewals(world, monkeypatch)
    async with world.working(Handlers(), lease_s=1e6, heartbeat_s=0.1):
        assert await asyncio.to_thread(renewals.enough.wait, SOON_S)


@pytest.mark.parametrize(
    ("settings", "looks"),
    [({"lease_s": 1e6, "heartbeat_s": 0.5}, 100), ({"lease_s": 1e6}, 10), ({}, 10)],
)
async def test_a_worker_looks_after_others_as_often(
    world: World, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], looks: int
) -> None:
    worker, seen = world.worker(Handlers(), **settings), 0

    async def rescue(own: int | None = None) -> int:
        nonlocal seen
        seen += 1
        return 0

    monkeypatch.setattr(worker._rescuer, "rescue", rescue)
    async with world.running(worker):
        await world.clock.sleep_s(50)
        assert looks * 0.9 <= seen <= looks * 1.1 + 1


def test_by_default_it_is_every_five_seconds_of_a_lease_of_twenty_five() -> None:
    assert (LEASE_S, WorkerSettings().beat_s) == (25.0, 5.0)
    assert WorkerSettings(lease_s=2).beat_s == pytest.approx(0.4)
    assert WorkerSettings(lease_s=2, heartbeat_s=0.9).beat_s == 0.9


numbers = st.floats() | st.floats(min_value=0, max_value=100)


@given(lease_s=numbers, heartbeat_s=st.none() | numbers)
@example(lease_s=25.0, heartbeat_s=12.5)
@example(lease_s=10.0, heartbeat_s=5.0)
@example(lease_s=25.0, heartbeat_s=10.0)
@example(lease_s=25.0, heartbeat_s=10.01)
def test_what_is_taken_has_two_heartbeats_in_every_lease(
    lease_s: float, heartbeat_s: float | None
) -> None:
    try:
        check_lease(lease_s, heartbeat_s)
    except MisuseError:
        return
    every_s = heartbeat_of(lease_s, heartbeat_s)
    assert 2 * every_s < lease_s
    assert 1 <= lease_s < math.inf
    assert 0.1 <= every_s <= 10


@given(lease_s=st.floats(min_value=1, max_value=1e6), share=st.floats(min_value=0, max_value=1))
@example(lease_s=1.0, share=0.0)
@example(lease_s=1e6, share=1.0)
def test_every_heartbeat_within_the_bounds_is_taken(lease_s: float, share: float) -> None:
    most_s = min(10.0, lease_s * 0.499)
    check_lease(lease_s, min(most_s, 0.1 + share * (most_s - 0.1)))
    check_lease(lease_s, None)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"heartbeat_s": 12.5}, "heartbeat_s is 12.5; give 0.1 to 10 seconds"),
        ({"heartbeat_s": 0.0}, "heartbeat_s is 0; give 0.1 to 10 seconds"),
        ({"heartbeat_s": math.nan}, "heartbeat_s is nan; give 0.1 to 10 seconds"),
        (
            {"lease_s": 8.0, "heartbeat_s": 4.0},
            "heartbeat_s is 4 and lease_s 8; give less than half of the lease, 4 seconds",
        ),
    ],
)
def test_a_heartbeat_that_cannot_be_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(MisuseError) as raised:
        WorkerSettings(**settings)
    assert str(raised.value) == says
