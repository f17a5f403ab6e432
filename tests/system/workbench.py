"""A program with handlers, jobs for it, and its workers as processes of their own."""

import asyncio
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from mailrace.cli import main
from mailrace.events import Events
from mailrace.jobs import Handlers, JobFilter, JobRow, JobState, open_queue, open_worker
from mailrace.queue import Attempted
from mailrace.queue.cluster import Cluster
from mailrace.queue.commands import Answer
from tests.support.command import arguments, environment, loads

PATIENCE_S = 30.0
TASKS = '''
"""Handlers that leave a trace."""

import asyncio
import time
from pathlib import Path

from mailrace.jobs import Handlers

handlers = Handlers()
empty = Handlers()
number = 3


def trace(name: str, text: object) -> None:
    with open(name, "a", encoding="utf-8") as file:
        file.write(f"{text}\\n")


@handlers.register("note")
async def note(text: str) -> None:
    trace("noted.txt", text)


@handlers.register("hold")
async def hold(text: str) -> None:
    """Until there is a file `go`."""
    trace("held.txt", text)
    while not Path("go").exists():
        await asyncio.sleep(0.01)


@handlers.register("insist")
async def insist(text: str) -> None:
    """Never, whoever asks."""
    trace("held.txt", text)
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass


@handlers.register("sit")
def sit(text: str) -> None:
    """In a thread that nobody can end."""
    trace("held.txt", text)
    time.sleep(600)


@handlers.register("refuse", retry="none")
async def refuse(text: str) -> None:
    raise ValueError(f"{text} is no good")
'''


def write_tasks(folder: Path) -> None:
    (folder / "tasks.py").write_text(TASKS, encoding="utf-8")


def enqueue(
    store: str, kind: str, texts: Iterable[str], *, keys: str | None = None, **choices: Any
) -> list[int]:
    async def add() -> list[int]:
        async with open_queue(store, keys=keys) as opened:
            return [job.id for job in await opened.enqueue_many(kind, texts, **choices)]

    return asyncio.run(add())


def jobs_of(store: str) -> list[JobRow]:
    async def look() -> list[JobRow]:
        async with open_queue(store) as opened:
            return await opened.find(JobFilter(), limit=1000)

    return asyncio.run(look())


def states_of(store: str) -> dict[str, int]:
    """How many jobs there are in each state that has any."""
    rows = jobs_of(store)
    return {
        str(state): sum(row.state is state for row in rows) for state in {r.state for r in rows}
    }


def restart(store: str) -> list[Answer]:
    """Orders a restart until everybody has heard of it: who has only just come hears nothing."""

    async def give() -> list[Answer]:
        async with open_queue(store) as opened:
            for _ in range(int(PATIENCE_S)):
                told = await Cluster(opened.store).restart(wait_s=1.0)
                if not told.silent:
                    return told.answers
        raise AssertionError("nobody answered")

    return asyncio.run(give())


def work_off(store: str, handlers: Handlers) -> None:
    """Has every job that waits attempted once, in this process."""

    async def work() -> None:
        async with open_queue(store) as opened:
            due = len(await opened.find(JobFilter(states=(JobState.AVAILABLE,)), limit=1000))
        events, done = Events(), asyncio.Semaphore(0)
        events.follow(Attempted, lambda _: done.release())
        async with open_worker(store, handlers, journals="journals", events=events) as worker:
            working = asyncio.create_task(worker.run())
            async with asyncio.timeout(PATIENCE_S):
                for _ in range(due):
                    await done.acquire()
            worker.drain()
            await working

    asyncio.run(work())


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


class WorkerProcess:
    """`mailrace worker tasks:handlers`, whose log lines can be waited for.

    In one process, where the words or the variables do not say otherwise.
    At the end of the block it is killed if it is still there.
    """

    def __init__(self, folder: Path, *words: str | Path, **variables: str) -> None:
        self.process = subprocess.Popen(
            arguments("worker", "tasks:handlers", *words),
            cwd=folder,
            env=environment() | {"MAILRACE_PROCESSES": "1"} | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[dict[str, Any]] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        pids = [line["process"] for line in self.log if line["event"] == "process started"]
        for pid in (self.process.pid, *pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._reading.join()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.put(line)
        self._lines.put(None)

    def until(self, event: str, **facts: Any) -> dict[str, Any]:
        """The next line about an event with these facts."""
        while (line := self._next()) is not None:
            if line["event"] == event and facts.items() <= line.items():
                return line
        raise AssertionError((event, self.log))

    def until_next(self) -> dict[str, Any]:
        """The next line about anything."""
        line = self._next()
        assert line is not None, self.log
        return line

    def until_end(self) -> int:
        """Until it and all that it started have ended; its exit code."""
        while self._next() is not None:
            pass
        return self.process.wait(PATIENCE_S)

    def _next(self) -> dict[str, Any] | None:
        text = self._lines.get(timeout=PATIENCE_S)
        if text is None:
            return None
        assert text.startswith("{"), text
        self.log.append(json.loads(text))
        return self.log[-1]

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def signal_again(self, number: signal.Signals) -> None:
        """Once more, when it is no longer taken for an echo of the last signal."""
        time.sleep(0.6)
        self.process.send_signal(number)


def until_lines(path: Path, count: int) -> list[str]:
    """Waits until a file has so many lines."""
    until_s = time.monotonic() + PATIENCE_S
    while len(found := lines_of(path)) < count:
        assert time.monotonic() < until_s, found
        time.sleep(0.02)
    return found


class Command:
    """`mailrace …` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def json(self, *words: str) -> Any:
        assert main([*words, "--json"]) in {0, 1}
        return loads(self._capsys.readouterr().out)

    def text(self, *words: str) -> str:
        assert main(words) in {0, 1}
        return self._capsys.readouterr().out

    def refused(self, *words: str) -> str:
        """What is said of bad input, without the name of the program."""
        assert main(words) == 2
        said = self._capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("mailrace: ")
        assert said.err.count("\n") == 1
        return said.err.removeprefix("mailrace: ").rstrip()
