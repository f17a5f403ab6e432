"""Processes that are killed at any moment: nothing is lost, nothing goes out twice."""

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from mailrace.clock import SystemClock
from mailrace.queue import JobState
from mailrace.queue.stores.sqlite import SqliteStore
from tests.queue.houses import SqliteHouse, counts, fill

PROGRAM = Path(__file__).with_name("process_to_kill.py")
JOBS = 4000
LAST = {JobState.COMPLETED: [], JobState.FAILED: ["fail"], JobState.UNCERTAIN: ["lose"]}


def start(folder: Path, batch_id: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, PROGRAM, folder, str(batch_id)], stdout=subprocess.PIPE, bufsize=0
    )


def kill_after(process: subprocess.Popen[bytes], departures: int) -> None:
    """Kills it in whatever it does once so many jobs have gone out, or lets it end before."""
    assert process.stdout is not None
    for _ in range(departures):
        if not process.stdout.read(1):
            break
    process.kill()
    process.wait()
    process.stdout.close()


def run_to_the_end(folder: Path, batch_id: int) -> None:
    process = start(folder, batch_id)
    process.communicate(timeout=60)
    assert process.returncode == 0


class FarSide:
    """What came out of the processes."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "handed-over"
        self.path.touch()

    @property
    def departures(self) -> list[tuple[int, int, int]]:
        lines = self.path.read_text(encoding="ascii").splitlines()
        return [
            (int(job), int(lease), int(attempt)) for job, lease, attempt in map(str.split, lines)
        ]


def steps_by_job(house: SqliteHouse) -> dict[int, list[str]]:
    """What is written of attempts: of those that ended well, nothing."""
    found: dict[int, list[str]] = {}
    for attempt in house.attempts(1):
        found.setdefault(int(attempt.key[1:]) + 1, []).append(attempt.step)
    return found


@pytest.mark.parametrize("rounds", [15])
async def test_whatever_moment_a_process_dies_at(sqlite_house: SqliteHouse, rounds: int) -> None:
    folder = sqlite_house.path.parent
    far_side = FarSide(folder)
    store = SqliteStore.open(sqlite_house.path, SystemClock())
    batch_id = await fill(store, JOBS)
    for _ in range(rounds):
        processes = [start(folder, batch_id) for _ in range(random.choice([1, 1, 2]))]
        for process in processes:
            kill_after(process, random.randrange(150))
    standing = await store.report(batch_id)
    assert standing.final < JOBS, "no round was killed before its end: this shows nothing"
    run_to_the_end(folder, batch_id)

    now = await counts(store, batch_id)
    assert sum(now.values()) == JOBS
    assert set(now) <= {JobState.COMPLETED, JobState.FAILED, JobState.UNCERTAIN}
    states = {int(key[1:]) + 1: state for key, state in sqlite_house.states(batch_id).items()}
    departures = far_side.departures
    assert max(Counter((job, lease) for job, lease, _ in departures).values()) == 1
    out = Counter(job for job, _, _ in departures)
    steps = steps_by_job(sqlite_house)
    for job, attempts in sqlite_house.select("SELECT id, attempt FROM jobs"):
        assert steps.get(job, []) == ["retry"] * (attempts - 1) + LAST[states[job]]
        if states[job] is JobState.UNCERTAIN:
            assert attempts - 1 <= out[job] <= attempts
        else:
            assert out[job] == attempts
    assert await store.processes() == []
    assert not [path for path in (folder / "journals").iterdir() if path.suffix == ".journal"]

    uncertain = await store.resend(batch_id)
    assert uncertain == now.get(JobState.UNCERTAIN, 0)
    run_to_the_end(folder, batch_id)
    assert set(await counts(store, batch_id)) == {JobState.COMPLETED, JobState.FAILED}
    again = Counter(job for job, _, _ in far_side.departures) - out
    assert {job for job in again if states[job] is not JobState.UNCERTAIN} == set()
    await store.close()


async def test_a_process_that_is_killed_again_and_again_gets_on(sqlite_house: SqliteHouse) -> None:
    """Claims that came to nothing count as no attempt, however many there were."""
    folder = sqlite_house.path.parent
    far_side = FarSide(folder)
    store = SqliteStore.open(sqlite_house.path, SystemClock())
    batch_id = await fill(store, 50)
    for _ in range(3):
        process = start(folder, batch_id)
        while JobState.RUNNING not in await counts(store, batch_id):
            assert process.poll() is None
        os.kill(process.pid, 9)
        process.communicate()
    killed = len(far_side.departures)
    run_to_the_end(folder, batch_id)
    first: dict[int, int] = {}
    for job, _, attempt in far_side.departures:
        first.setdefault(job, attempt)
    assert set(first.values()) == {1}
    assert len(far_side.departures) > killed
    now = await counts(store, batch_id)
    assert now.get(JobState.UNCERTAIN, 0) <= 30
    assert sum(now.values()) == 50
    await store.close()
