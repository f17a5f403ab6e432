"""How long a lease is: a setting of each process, which all the others go by."""

import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mailrace.errors import MisuseError
from mailrace.jobs import WorkerSettings
from mailrace.queue import Place, Rescuer, boot_id
from mailrace.queue.journal import Journal
from mailrace.queue.processes import NewProcess
from mailrace.queue.session import LEASE_S
from mailrace.queue.stores.sqlite import SqliteStore
from tests.support.clock import VirtualClock


@pytest.mark.parametrize("lease_s", [0.0, 0.9, -1.0, math.nan, math.inf])
def test_a_lease_that_cannot_be_held_is_refused(lease_s: float) -> None:
    with pytest.raises(MisuseError, match=r"lease_s is .*; give seconds, one or more"):
        WorkerSettings(lease_s=lease_s)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore.open(tmp_path / "jobs.db", VirtualClock(auto=True))
    yield opened
    await opened.close()


@pytest.mark.parametrize("lease_s", [LEASE_S / 10, LEASE_S, 10 * LEASE_S])
async def test_a_process_is_silent_after_its_own_lease(
    store: SqliteStore, tmp_path: Path, lease_s: float
) -> None:
    """One with a longer lease than that of whoever looks is not robbed while it lives."""
    place = Place(journals=tmp_path / "journals", boot=boot_id())
    clock = store._clock
    journal = Journal.create(place.journals / "other.journal", place.boot)
    await store.register(NewProcess(journal=journal.path.name), lease_s)
    looking = Rescuer(store, place, clock)
    await looking.rescue()
    await clock.sleep_s(lease_s - 0.1)
    await looking.rescue()
    assert len(await store.processes()) == 1
    await clock.sleep_s(0.2)
    await looking.rescue()
    assert await store.processes() == []
    journal.close()
