"""A supervisor with real workers: restarted in the middle of the work, and drained at its end."""

import asyncio
import os
import random
import sys
from collections import Counter
from pathlib import Path

from mailrace.clock import SystemClock
from mailrace.events import Events
from mailrace.jobs import JobState, open_cluster, open_queue
from mailrace.queue.children import ProcessDied
from mailrace.queue.cluster import Cluster
from mailrace.queue.rolling import RestartEnded
from mailrace.queue.supervisor import Supervisor
from mailrace.queue.supervisor_settings import SupervisorSettings

_JOBS = 1200
_LIMIT_S = 60


def supervisor_of(cluster: Cluster, store: str, done: Path, events: Events) -> Supervisor:
    script = str(Path(__file__).with_name("worker_to_supervise.py"))
    return Supervisor(
        cluster.store,
        lambda _: [sys.executable, script, store, str(done)],
        os.environ,
        clock=SystemClock(),
        rng=random.Random(1),
        events=events,
        settings=SupervisorSettings(processes=2, name="one"),
    )


async def completed(cluster: Cluster, jobs: int) -> None:
    """Until so many jobs are."""
    while True:
        figures = await cluster.statistics()
        if figures.counts[JobState.COMPLETED] >= jobs:
            return
        await asyncio.sleep(0.02)


async def test_a_rolling_restart_loses_and_repeats_nothing(tmp_path: Path) -> None:
    store, done = f"sqlite:///{tmp_path}/jobs.db", tmp_path / "done"
    done.touch()
    async with open_queue(store) as queue:
        await queue.enqueue_many("write", range(_JOBS))
    events, restarts, deaths = Events(), list[object](), list[object]()
    ended = asyncio.Event()
    events.follow(RestartEnded, restarts.append)
    events.follow(RestartEnded, lambda _: ended.set())
    events.follow(ProcessDied, deaths.append)
    async with asyncio.timeout(_LIMIT_S), open_cluster(store) as cluster:
        supervisor = supervisor_of(cluster, store, done, events)
        running = asyncio.create_task(supervisor.run())
        await completed(cluster, 50)
        before = set(supervisor.pids)
        told = await cluster.restart()
        assert [answer.by for answer in told.answers] == ["supervisor:one"]
        await ended.wait()
        assert restarts == [RestartEnded(replaced=2)]
        assert before.isdisjoint(supervisor.pids)
        await completed(cluster, _JOBS)
        views = await cluster.workers()
        assert {view.process.pid for view in views} == set(supervisor.pids)
        assert {view.process.supervisor for view in views} == {"one"}
        told = await cluster.drain()
        await running
        assert told.done
        assert await cluster.workers() == []
        assert await cluster.supervisors() == []
    lines = Counter(line.split()[0] for line in done.read_text(encoding="ascii").splitlines())
    assert len(lines) == _JOBS
    assert set(lines.values()) == {1}
    assert deaths == []


async def test_workers_whose_supervisor_is_gone_leave_by_themselves(tmp_path: Path) -> None:
    store, done = f"sqlite:///{tmp_path}/jobs.db", tmp_path / "done"
    done.touch()
    async with asyncio.timeout(_LIMIT_S), open_cluster(store) as cluster:
        script = str(Path(__file__).with_name("worker_to_supervise.py"))
        reading, writing = os.pipe()
        worker = await asyncio.create_subprocess_exec(
            sys.executable, script, store, str(done), pass_fds=(reading,),
            env={**os.environ, "MAILRACE_PARENT_FD": str(reading), "MAILRACE_SUPERVISOR": "x"},
        )  # fmt: skip
        os.close(reading)
        while not await cluster.workers():  # noqa: ASYNC110 - another process's doing
            await asyncio.sleep(0.02)
        os.close(writing)
        assert await worker.wait() == 0
        assert await cluster.workers() == []
