"""A server program run by a test: in a folder of its own, as a user without rights."""

import os
import pwd
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

LIMIT_S = 60.0
_UNPRIVILEGED = "nobody"
# Below the ports that Linux gives to clients: a client that goes on dialling the port of a server
# that is down would in time be given that very port, connect to itself and keep the server out.
_PORTS = range(20_000, 32_000)
# Told one process id a line, an empty line for none. The end of its input is the end of whoever
# started it, by whatever signal: then nothing may be left, neither process nor folder.
_WATCHDOG = """
while read -r line; do pid=$line; done
if [ -n "$pid" ]; then
    kill -s "$2" "$pid"
    tries=0
    while kill -0 "$pid" && [ "$tries" -lt 600 ]; do sleep 0.05; tries=$((tries + 1)); done
fi
rm -rf "$1"
"""


def why_not() -> str | None:
    """Why no server can be run here; None if one can."""
    if os.name != "posix":
        return "servers of one's own are run on POSIX systems only"
    if os.geteuid() == 0 and not _has_user(_UNPRIVILEGED):
        return f"run by root, and there is no user {_UNPRIVILEGED} to run a server as"
    return None


def unused_port() -> int:
    """A TCP port on the loopback that nobody listens on."""
    chance = random.SystemRandom()  # two runs with one seed must not meet
    while True:
        port = chance.choice(_PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Daemon:
    """One program at a time in a folder that both go when this process ends, however it ends.

    Root's own folders are closed to others and some servers refuse to be root: under root the
    folder belongs to the user `nobody`, and so do the processes.
    """

    def __init__(self, name: str, *, last_signal: signal.Signals = signal.SIGTERM) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"mailrace-{name}-", dir="/tmp"))
        self._account: dict[str, Any] = {}
        if os.geteuid() == 0:
            entry = pwd.getpwnam(_UNPRIVILEGED)
            self._account = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
            self.folder.chmod(0o755)
        self._process: subprocess.Popen[bytes] | None = None
        signal_name = last_signal.name.removeprefix("SIG")
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHDOG, "sh", self.folder, signal_name],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def log(self) -> Path:
        """What the program has written, over all its starts."""
        return self.folder / "log"

    @property
    def pid(self) -> int | None:
        """The running program's process id."""
        is_running = self._process is not None and self._process.poll() is None
        return self._process.pid if self._process is not None and is_running else None

    def can_run(self, *words: str | Path) -> bool:
        """Whether the user without rights reaches a program; it is run to find out."""
        try:
            self.run(*words)
        except (OSError, subprocess.CalledProcessError):
            return False
        return True

    def run(self, *words: str | Path) -> None:
        """Runs a program to its end.

        Raises:
            subprocess.CalledProcessError: it failed; what it wrote is in `output`.
        """
        subprocess.run(
            words,
            check=True,
            timeout=LIMIT_S,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **self._surroundings(),
        )

    def start(self, *words: str | Path, is_ready: Callable[[int], bool]) -> None:
        """Starts the program and returns once `is_ready(its process id)`.

        Raises:
            RuntimeError: it ended instead, or is not ready after a minute.
        """
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                words, stdout=log, stderr=log, start_new_session=True, **self._surroundings()
            )
        self._tell_watchdog(str(self._process.pid))
        deadline = time.monotonic() + LIMIT_S
        while not is_ready(self._process.pid):
            if self._process.poll() is not None or time.monotonic() > deadline:
                written = self.log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{words[0]} did not start: {written}")
            time.sleep(0.005)

    def end(self, number: signal.Signals) -> None:
        """Sends a signal and returns once the program has ended; does nothing without one."""
        if self._process is None:
            return
        self._process.send_signal(number)
        self._process.wait(LIMIT_S)
        self._process = None
        self._tell_watchdog("")

    def close(self) -> None:
        """Removes the folder; what still runs is killed."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._watchdog.communicate()

    def _surroundings(self) -> Mapping[str, Any]:
        environment = {"LC_ALL": "C", "TZ": "UTC", "PATH": "/usr/bin:/bin"}
        return {
            "cwd": self.folder,
            "env": environment,
            "stdin": subprocess.DEVNULL,
            **self._account,
        }

    def _tell_watchdog(self, line: str) -> None:
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.write(line.encode() + b"\n")
        self._watchdog.stdin.flush()


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
