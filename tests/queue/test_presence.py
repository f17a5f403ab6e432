"""How others see a supervisor: there, gone, stopped, or replaced by its successor."""

from typing import Any

import msgspec

from mailrace.queue import Store
from mailrace.queue.presence import Presence
from mailrace.queue.staffing import StaffingSettings
from mailrace.queue.supervisors import NOTES, SupervisorRow, read_supervisors
from tests.queue.houses import House, now_ms

BOUNDS = StaffingSettings(processes_min=1, processes_max=4)


async def tell(presence: Presence, **fields: Any) -> None:
    given: dict[str, Any] = {
        "processes": 2,
        "pids": (7, 9),
        "state": "working",
        "bounds": BOUNDS,
    } | fields
    await presence.tell(**given)


async def put(store: Store, name: str, heartbeat_ms: int, **fields: Any) -> None:
    given: dict[str, Any] = {"host": "mill", "queues": ("*",)} | fields
    row = SupervisorRow(name=name, heartbeat_ms=heartbeat_ms, **given)
    await store.note(NOTES + name, msgspec.json.encode(row))


async def names(store: Store) -> list[str]:
    return [row.name for row in read_supervisors(await store.notes(NOTES))]


async def test_a_heartbeat_tells_how_it_stands(house: House, store: Store) -> None:
    begin_ms = now_ms(house)
    presence = Presence(store, "one", "mill", ("mail",))
    await tell(presence)
    house.clock.move_to(10.0)
    await tell(presence, state="draining", pids=(7,))
    (row,) = read_supervisors(await (await house.opened()).notes(NOTES))
    assert (row.name, row.host, row.queues, row.state) == ("one", "mill", ("mail",), "draining")
    assert (row.processes, row.processes_min, row.processes_max, row.pids) == (2, 1, 4, (7,))
    assert (row.started_ms, row.heartbeat_ms) == (begin_ms, begin_ms + 10_000)
    assert not row.is_gone(begin_ms + 25_000)
    assert row.is_gone(begin_ms + 25_001)


async def test_one_that_takes_its_leave_is_not_missed(store: Store) -> None:
    presence = Presence(store, "one", "mill", ("*",))
    await tell(presence)
    assert await presence.leave() is None
    assert await names(store) == []


async def test_it_takes_the_place_of_those_that_were_killed_here_before(
    house: House, store: Store
) -> None:
    begin_ms = now_ms(house)
    await put(store, "killed", begin_ms - 60_000)
    await put(store, "killed a moment ago", begin_ms - 1000)
    await put(store, "elsewhere", begin_ms - 60_000, host="weir")
    await put(store, "of other queues", begin_ms - 60_000, queues=("other",))
    presence = Presence(store, "one", "mill", ("*",))
    await tell(presence)
    assert "killed" not in await names(store)
    assert "killed a moment ago" in await names(store)
    house.clock.move_to(1.0)
    await put(store, "killed later", now_ms(house))
    house.clock.move_to(30.0)
    await tell(presence)
    assert await names(store) == ["elsewhere", "killed later", "of other queues", "one"]
