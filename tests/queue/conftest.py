"""The stores and runs of the queue's tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mailrace.queue import Store
from tests.queue.houses import House, SqliteHouse
from tests.queue.world import FlakyStore, World
from tests.support.clock import VirtualClock


@pytest.fixture
async def sqlite_house(tmp_path: Path) -> AsyncIterator[SqliteHouse]:
    house = SqliteHouse(tmp_path, VirtualClock())
    yield house
    await house.close()


@pytest.fixture(params=["sqlite"])
def house(request: pytest.FixtureRequest) -> House:
    """Each kind of store in turn."""
    found: House = request.getfixturevalue(f"{request.param}_house")
    return found


@pytest.fixture
def store(house: House) -> Store:
    return house.open()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = VirtualClock(auto=True)
    house = SqliteHouse(tmp_path, clock)
    store = FlakyStore.open(house.path, clock)
    yield World(clock=clock, house=house, store=store, journals=tmp_path / "journals")
    await store.close()
    await house.close()
