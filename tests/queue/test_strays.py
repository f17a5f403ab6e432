"""Claims whose answer was lost on its way: nobody knows of them, and they are handed back."""

from collections.abc import Sequence
from typing import Any

import pytest

from mailrace.errors import UnavailableError
from mailrace.queue import ClaimedJob, JobState
from mailrace.queue.flows import Want
from mailrace.queue.jobrows import JobFilter
from mailrace.queue.kinds import Handlers
from tests.queue.houses import add
from tests.queue.world import World


def counting() -> tuple[Handlers, list[str]]:
    done: list[str] = []
    handlers = Handlers()

    async def note(payload: dict[str, str]) -> None:
        done.append(payload["to"])

    handlers.add("kind", note)
    return handlers, done


async def test_jobs_whose_claim_was_never_answered_run_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, lost = world.store.claim, 0

    async def claim_and_lose(
        process_id: int, wants: Sequence[Want], **choices: Any
    ) -> list[ClaimedJob]:
        nonlocal lost
        jobs = await claim(process_id, wants, **choices)
        if jobs and not lost:
            lost = len(jobs)
            raise UnavailableError("the connection broke before the answer came")
        return jobs

    monkeypatch.setattr(world.store, "claim", claim_and_lose)
    handlers, done = counting()
    names = [f"j{number}" for number in range(50)]
    await add(world.store, *names)
    async with world.working(handlers):
        await world.until_counts({JobState.COMPLETED: 50})
        assert world.clock.monotonic_s() < 30
    assert lost
    assert sorted(done) == sorted(names)
    (row,) = {(row.attempt, row.deaths) for row in await world.store.find(JobFilter(), limit=100)}
    assert row == (1, 0)
    await world.assert_nothing_is_left()


async def test_what_is_held_or_in_hand_is_no_stray(world: World) -> None:
    """Three jobs for one slow worker: over many looks they are its own, and are done once."""
    handlers = Handlers()
    done: list[str] = []

    async def slow(payload: dict[str, str]) -> None:
        await world.clock.sleep_s(7)
        done.append(payload["to"])

    handlers.add("kind", slow)
    await add(world.store, "a", "b", "c")
    async with world.working(handlers, concurrency=1):
        await world.until_counts({JobState.COMPLETED: 3})
    assert done == ["a", "b", "c"]
