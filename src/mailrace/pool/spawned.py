"""One spawned process, from its start to its end, and this end of the socket to it."""

import multiprocessing
import runpy
import signal
import socket
import threading
import time
from contextlib import suppress
from multiprocessing import resource_tracker, util
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mailrace.errors import UnavailableError
from mailrace.pool import child as child_program

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_SPAWN: Final = multiprocessing.get_context("spawn")
_PROGRAM: Final = str(Path(child_program.__file__).resolve())

# Somebody else in this program may collect the exit code (multiprocessing does when any process
# is started): it is noted a moment later, or never if it was not multiprocessing.
_REAP_TRIES: Final = 100
_REAP_PAUSE_S: Final = 0.01


class SpawnedProcess:
    """A process that answers calls until it is ended.

    What is not said to be for any thread is for one at a time.

    Attributes:
        pid: Its number.
        answers: The calls it has answered.
    """

    def __init__(self, name: str, *, reports_memory: bool) -> None:
        """Starts it, without waiting until it runs.

        Args:
            reports_memory: Whether its answers say how much resident memory it has.

        Raises:
            UnavailableError: The machine has no process to spare.
        """
        self.answers = 0
        self._lock = threading.Lock()
        self._doomed = False
        self._ended = False
        self._exit_code: int | None = None
        try:
            self._pipe, self._process = _spawn(name, reports_memory=reports_memory)
        except OSError as error:
            raise UnavailableError(
                f"process {name} cannot be started: {error}", hint="use fewer workers"
            ) from error
        self.pid = self._process.pid
        # When this object goes; or at the exit of the program, before multiprocessing waits for it.
        self._at_exit = util.Finalize(self, _end_at_once, args=(self._process,), exitpriority=100)

    @property
    def usable(self) -> bool:
        """Whether it is there and may be asked; from any thread."""
        with self._lock:
            return not self._doomed and not self._ended and self._process.is_alive()

    def ask(self, request: bytes) -> bytes:
        """Sends a pickled call and waits for the pickled answer.

        Raises:
            EOFError, OSError: It is dead, or as good as that.
        """
        try:
            self._pipe.send_bytes(request)
            answer = self._pipe.recv_bytes()
        except BaseException:
            # Half a message may be under way: nobody can talk to it any more.
            self.kill()
            raise
        self.answers += 1
        return answer

    def kill(self) -> None:
        """Kills it and frees whoever waits for its answer; does not wait; from any thread."""
        with self._lock:
            self._doomed = True
            if not self._ended:
                self._process.kill()
                self._shut_down(socket.SHUT_RDWR)

    def retire(self) -> None:
        """Lets it end by itself, which is not waited for."""
        self._doomed = True
        self._shut_down(socket.SHUT_WR)

    def end(self, grace_s: float) -> int | None:
        """Ends it, by force after a grace, and gives back all it held; returns its exit code."""
        if self._ended:
            return self._exit_code
        self.retire()
        # It holds its end until it is gone. Unlike the process's own sentinel no process that
        # a function left behind can hold this one.
        with suppress(OSError):
            self._pipe.poll(grace_s)
        self.kill()
        self._exit_code = _reap(self._process)
        with self._lock:
            self._ended = True
            self._at_exit.cancel()
            self._pipe.close()
            with suppress(ValueError):  # somebody else has its exit code
                self._process.close()
        return self._exit_code

    def _shut_down(self, what: int) -> None:
        view = socket.socket(fileno=self._pipe.fileno())
        try:
            view.shutdown(what)
        except OSError:
            pass  # the other end is gone
        finally:
            view.detach()


def _spawn(name: str, *, reports_memory: bool) -> "tuple[Connection[Any, Any], SpawnProcess]":
    # A socket and not two pipes: shut down, it frees a blocked thread at once.
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(
        target=runpy.run_path,
        args=(_PROGRAM, {"pipe": theirs, "reports_memory": reports_memory}),
        kwargs={"run_name": child_program.RUN_NAME},
        name=name,
        daemon=True,
    )
    with theirs:
        try:
            _start(process)
        except BaseException:
            ours.close()
            raise
    return ours, process


def _start(process: SpawnProcess) -> None:
    """Starts it with SIGINT blocked, until it ignores that: Ctrl-C must not hit it before."""
    # First, because making the tracker's process unblocks signals.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_at_once(process: SpawnProcess) -> None:
    with suppress(ValueError):  # closed in this moment by its own thread
        process.kill()
        _reap(process)


def _reap(process: SpawnProcess) -> int | None:
    for _ in range(_REAP_TRIES):
        process.join()
        if process.exitcode is not None:
            return process.exitcode
        time.sleep(_REAP_PAUSE_S)
    return None


def signal_name(exit_code: int | None) -> str:
    """The signal that an exit code stands for; empty if none."""
    if exit_code is None or exit_code >= 0:
        return ""
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"
