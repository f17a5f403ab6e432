"""The stores and runs of the queue's tests."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mailrace.queue import Store
from tests.queue.houses import Estate, House, PostgresEstate, SqliteEstate, SqliteHouse
from tests.queue.world import FlakyStore, World
from tests.support.clock import VirtualClock
from tests.support.postgres import Databases

# Syncing to a disk would be two thirds of the time; nothing here asks what a failure of the
# machine leaves behind.
_MEMORY = Path("/dev/shm")


@pytest.fixture
def sqlite_estate() -> Iterator[SqliteEstate]:
    with TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        yield SqliteEstate(Path(folder))


@pytest.fixture(scope="session")
def postgres_estate(postgres_databases: Databases) -> Iterator[PostgresEstate]:
    """One database for the whole run; skips, with the reason, where there is no PostgreSQL."""
    with PostgresEstate.on(postgres_databases) as found:
        yield found


@pytest.fixture(params=["sqlite", "postgres"])
def estate(request: pytest.FixtureRequest) -> Estate:
    """Each kind of store in turn, for tests that need several houses."""
    found: Estate = request.getfixturevalue(f"{request.param}_estate")
    return found


@pytest.fixture
async def house(estate: Estate) -> AsyncIterator[House]:
    """Each kind of store in turn."""
    found = estate.house()
    yield found
    await found.close()


@pytest.fixture
async def store(house: House) -> Store:
    return await house.opened()


@pytest.fixture
async def sqlite_house(tmp_path: Path) -> AsyncIterator[SqliteHouse]:
    house = SqliteHouse(tmp_path, VirtualClock())
    yield house
    await house.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = VirtualClock(auto=True)
    house = SqliteHouse(tmp_path, clock)
    store = FlakyStore.open(house.path, clock)
    yield World(clock=clock, house=house, store=store, journals=tmp_path / "journals")
    await store.close()
    await house.close()
