"""A process that runs one function after another, and can be killed in the middle of one."""

import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, assert_never

from mailrace.errors import MisuseError
from mailrace.pool import child as child_program
from mailrace.pool.errors import JobError, WorkerDiedError
from mailrace.pool.spawned import SpawnedProcess, signal_name

# What a process that has done its number of calls may take to leave before it is killed.
_RETIRE_S: Final = 2.0
_NO_MAIN_HINT: Final = (
    "the main program is no file (standard input, -c or a notebook), so that a process cannot "
    "import it: put the function into a module and import it from there"
)


class ProcessDiedError(WorkerDiedError):
    """The process ended before it answered. Whether the function did its work is not known.

    Attributes:
        exit_code: As the system gave it, minus the signal's number for a signal; `None` if
            unknown.
        signal_name: For example `SIGKILL`; empty if it was no signal.
    """

    def __init__(self, problem: str, *, exit_code: int | None, hint: str = "") -> None:
        super().__init__(problem, hint=hint)
        self.exit_code = exit_code
        self.signal_name = signal_name(exit_code)


class FunctionFailedError(JobError):
    """The function raised in its process what cannot be pickled: this stands for it, with its text
    and, as the cause, its traceback.
    """


class ChildTracebackError(Exception):
    """The traceback in the process, as text: the cause of what is raised here."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class WorkerProcess:
    """A spawned process that runs the functions it is handed, one at a time.

    The process is made at the first call, kept between calls, and made anew when it was killed,
    died or is due for replacement. It shares no lock and no queue with others, only one socket with
    this object, so that killing it concerns nobody else. It ends when this program does, in
    whatever way.

    Functions and arguments are pickled. The rules of `multiprocessing`'s spawn hold: the process
    imports the program's main module, which has to begin its work under
    `if __name__ == "__main__":`. Context variables do not travel to the process. It ignores
    SIGINT; its standard output and error are the program's.
    """

    def __init__(
        self, name: str, *, recycle_after: int | None = None, memory_max_bytes: int | None = None
    ) -> None:
        """Starts nothing yet.

        Args:
            name: What the process is called in errors and by `multiprocessing`.
            recycle_after: How many calls a process does before a new one takes its place.
            memory_max_bytes: The resident memory that a process may have after a call; with more,
                a new one takes its place. It is never replaced in the middle of a call.
        """
        self._name = name
        self._recycle_after = recycle_after
        self._memory_max_bytes = memory_max_bytes
        # Held during a call: the process has one at a time, and its end is the caller's to see to.
        self._turn = threading.Lock()
        # Held for moments only, by whoever reads or changes what follows.
        self._lock = threading.Lock()
        self._child: SpawnedProcess | None = None
        self._calling = False
        self._killed = False
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process that has the present call or would have the next; `None` if none is there."""
        with self._lock:
            return self._child.pid if self._child is not None and self._child.usable else None

    @property
    def alive(self) -> bool:
        """Whether there is a process."""
        return self.pid is not None

    def call(
        self, function: Callable[..., object], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> object:
        """Runs the function in the process and returns its result; blocks until then.

        Whatever the function raises is raised here, with the traceback of the process as its cause.

        Raises:
            MisuseError: The function, its arguments or its result cannot be pickled.
            FunctionFailedError: The function raised what cannot be pickled.
            ProcessDiedError: The process ended first; it may have been killed.
            UnavailableError: The machine has no process to spare.
        """
        value, failure = self._exchange(function, _pickled(function, args, kwargs))
        if failure is None:
            return value
        # Whoever keeps the error keeps this frame.
        del args, kwargs
        raise _error(function, failure)

    def kill(self) -> bool:
        """Kills the process, from any thread, without waiting; the present call raises
        `ProcessDiedError`, unless its answer is here already.

        Returns:
            Whether there was a call. One that has not come as far as `call` in its thread is
            not killed: try again after a moment.
        """
        with self._lock:
            self._killed = self._calling
            if self._child is not None:
                self._child.kill()
            return self._calling

    def close(self, timeout_s: float) -> None:
        """Ends the process and waits for it; a second time does nothing.

        Args:
            timeout_s: What a present call and the process may take before it is killed.
        """
        until_s = time.monotonic() + timeout_s
        with self._lock:
            self._closed = True
        if not self._turn.acquire(timeout=max(0.0, timeout_s)):
            self.kill()
            self._turn.acquire()
        try:
            if self._child is not None:
                self._child.end(max(0.0, until_s - time.monotonic()))
        finally:
            self._turn.release()

    def _exchange(
        self, function: Callable[..., object], request: bytes
    ) -> tuple[object, child_program.Failure | None]:
        with self._turn:
            self._begin()
            try:
                child = self._usable_child()
                try:
                    answer = child.ask(request)
                except (EOFError, OSError):
                    del request  # the error keeps this frame
                    raise self._died(child, function, child.end(0)) from None
            finally:
                self._finish()
            memory_bytes, value, failure = _read(function, answer)
            if self._is_due(child, memory_bytes):
                child.retire()
        return value, failure

    def _begin(self) -> None:
        with self._lock:
            if self._closed:
                raise MisuseError(f"process {self._name} is closed", hint="make a new one")
            self._calling, self._killed = True, False

    def _finish(self) -> None:
        with self._lock:
            self._calling = False

    def _usable_child(self) -> SpawnedProcess:
        child = self._child
        if child is not None:
            if child.usable:
                return child
            child.end(_RETIRE_S)
        child = SpawnedProcess(self._name, reports_memory=self._memory_max_bytes is not None)
        with self._lock:
            self._child = child
            if self._killed:  # while it was being made
                child.kill()
        return child

    def _died(
        self, child: SpawnedProcess, function: Callable[..., object], exit_code: int | None
    ) -> ProcessDiedError:
        how = signal_name(exit_code) or f"exit code {exit_code}"
        problem = f"process {self._name} died ({how}) while it had {_name(function)}"
        if self._killed:
            hint = "it was killed on purpose"
        elif child.answers == 0 and exit_code == 1 and not _main_is_a_file():
            hint = _NO_MAIN_HINT
        elif child.answers == 0 and exit_code == 1:
            hint = 'see what it wrote; is the main program under if __name__ == "__main__":?'
        elif exit_code == -signal.SIGKILL:
            hint = "something outside killed it: perhaps the machine ran out of memory"
        else:
            hint = "see what it wrote to the standard error"
        return ProcessDiedError(problem, exit_code=exit_code, hint=hint)

    def _is_due(self, child: SpawnedProcess, memory_bytes: int) -> bool:
        if self._recycle_after is not None and child.answers >= self._recycle_after:
            return True
        return self._memory_max_bytes is not None and memory_bytes > self._memory_max_bytes


def _main_is_a_file() -> bool:
    """Whether a process can import the program's main module, as spawn has to."""
    path = getattr(sys.modules["__main__"], "__file__", None)
    return path is not None and Path(path).is_file()


def _pickled(
    function: Callable[..., object], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> bytes:
    try:
        return pickle.dumps((function, args, kwargs), child_program.PICKLE_PROTOCOL)
    except Exception as error:
        raise MisuseError(
            f"{_name(function)} cannot be handed to a process: {error}",
            hint="use a module-level function and arguments that can be pickled",
        ) from error


def _read(function: Callable[..., object], answer: bytes) -> child_program.Answer:
    try:
        read: child_program.Answer = pickle.loads(answer)  # noqa: S301 - our own process wrote it
    except Exception as error:
        raise MisuseError(
            f"the result of {_name(function)} cannot be read: {type(error).__name__}: {error}",
            hint="return plain data",
        ) from error
    return read


def _error(function: Callable[..., object], failure: child_program.Failure) -> BaseException:
    failed, pickled, text, trace = failure
    error: BaseException
    match failed:
        case "function":
            error = _rebuilt(pickled) or FunctionFailedError(
                f"{_name(function)} raised {text}", hint="this error cannot be pickled"
            )
        case "call":
            hint = "use a module-level function and arguments that can be pickled"
            error = MisuseError(
                f"{_name(function)} cannot be read in its process: {text}",
                hint=hint if _main_is_a_file() else _NO_MAIN_HINT,
            )
        case "result":
            error = MisuseError(
                f"the result of {_name(function)} cannot be pickled: {text}",
                hint="return plain data",
            )
        case _:
            assert_never(failed)
    error.__cause__ = ChildTracebackError(trace)
    return error


def _rebuilt(pickled: bytes | None) -> BaseException | None:
    if pickled is None:
        return None
    try:
        error = pickle.loads(pickled)  # noqa: S301 - our own process wrote it
        if isinstance(error, tuple):
            kind, args, attributes = error
            error = kind.__new__(kind, *args)
            vars(error).update(attributes)
    except Exception:  # noqa: BLE001 - its text is there
        return None
    return error if isinstance(error, BaseException) else None


def _name(function: Callable[..., object]) -> str:
    name = getattr(function, "__qualname__", None)
    return f"{function.__module__}.{name}" if name else repr(function)
