"""Starts processes of `world.py`, listens to them, and sends them signals."""

import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from tests.support.command import environment

PROGRAM = Path(__file__).with_name("world.py")
PATIENCE_S = 40.0


class Process:
    """One process of `world.py`; at the end of the block it is killed if it is still there."""

    def __init__(self, **plan: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, PROGRAM, msgspec.json.encode(plan).decode()],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.pid = self._process.pid
        self.said: list[dict[str, Any]] = []
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._errors = b""
        self._reading = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for thread in self._reading:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._process.kill()  # also one that stands still
        self._process.wait()
        for thread in self._reading:
            thread.join()
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._process.stdout.close()
        self._process.stderr.close()

    def until(self, event: str, **facts: Any) -> dict[str, Any]:
        """The next line about an event with these facts."""
        while True:
            line = self._next()
            assert line is not None, (event, self.said[-20:], self._errors.decode()[-3000:])
            if line["event"] == event and facts.items() <= line.items():
                return line

    def until_ever(self, event: str) -> dict[str, Any]:
        """The first line about an event, also if it was read before."""
        said = next((line for line in self.said if line["event"] == event), None)
        return self.until(event) if said is None else said

    def jobs_until(self, event: str, jobs: int) -> None:
        """Until so many jobs were told of under this event, since it was started."""
        while sum(_jobs(line) for line in self.said if line["event"] == event) < jobs:
            self.until(event)

    def forget(self) -> None:
        """Forgets the lines that were not read yet."""
        while not self._lines.empty():
            self._next()

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self._process.wait(PATIENCE_S)

    def drain(self) -> None:
        """Tells it to stop, and returns when it has ended well."""
        self.send(signal.SIGTERM)
        assert self.exit_code() == 0, (self.said[-20:], self._errors.decode()[-3000:])

    def exit_code(self) -> int:
        while self._next() is not None:
            pass
        return self._process.wait(PATIENCE_S)

    def _next(self) -> dict[str, Any] | None:
        try:
            text = self._lines.get(timeout=PATIENCE_S)
        except queue.Empty:
            raise AssertionError(("it says nothing more", self.said[-20:])) from None
        if not text:
            return None
        self.said.append(msgspec.json.decode(text))
        return self.said[-1]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith(b"\n"):  # a kill may cut the last one off
                self._lines.put(line)
        self._lines.put(b"")

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        self._errors = self._process.stderr.read()


def _jobs(line: dict[str, Any]) -> int:
    jobs = line["jobs"]
    return jobs if isinstance(jobs, int) else len(jobs)
