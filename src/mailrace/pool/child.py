"""What runs inside a worker's process: it answers calls until its parent hangs up.

It is run by its path and imports nothing of the package: by its name it would bring all of
Mailrace into every process, a tenth of a second and twenty megabytes each.
"""

import multiprocessing
import os
import pickle
import resource
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

RUN_NAME: Final = "__mailrace_process__"
"""The name under which the parent runs this file."""
PICKLE_PROTOCOL: Final = 5

_STATM: Final = Path("/proc/self/statm")

Failed = Literal["call", "function", "result"]
Failure = tuple[Failed, bytes | None, str, str]
"""What failed: reading the call, the function, or pickling its result; the pickled error, if it
can be; its text; its traceback."""
Answer = tuple[int, object, Failure | None]
"""The memory of the process in bytes (0 if not asked for), the result, the failure."""


def serve(pipe: "Connection[bytes, bytes]", *, reports_memory: bool) -> None:
    """Answers the calls that come through the pipe until there are no more."""
    _leave_signals_to_parent()
    _end_with_parent()
    _keep_to_this_process(pipe)
    # The parent takes it for a daemon, to end it with the program; as one it could have no
    # processes of its own.
    multiprocessing.current_process().daemon = False
    memory_bytes = _memory_meter() if reports_memory else _no_memory
    while _answer_one(pipe, memory_bytes):
        pass


def _answer_one(pipe: "Connection[bytes, bytes]", memory_bytes: Callable[[], int]) -> bool:
    # A function of its own, so that nothing of a call is held while the next one is awaited.
    try:
        call = pipe.recv_bytes()
    except (EOFError, OSError):
        return False
    value, failure = _run(call)
    del call
    try:
        answer = pickle.dumps((memory_bytes(), value, failure), PICKLE_PROTOCOL)
    except Exception as error:  # noqa: BLE001 - the parent is told
        failure = _failure("result", error)
        answer = pickle.dumps((memory_bytes(), None, failure), PICKLE_PROTOCOL)
    try:
        pipe.send_bytes(answer)
    except OSError:
        return False
    return True


def _run(call: bytes) -> tuple[object, Failure | None]:
    try:
        function, args, kwargs = pickle.loads(call)  # noqa: S301 - the parent wrote it
    except BaseException as error:  # noqa: BLE001 - a module may even exit while it is imported
        return None, _failure("call", error)
    del call
    try:
        return function(*args, **kwargs), None
    except BaseException as error:  # noqa: BLE001 - the parent is the one to raise it
        return None, _failure("function", error)


def _failure(failed: Failed, error: BaseException) -> Failure:
    own = error.__traceback__
    error.__traceback__ = own.tb_next if own else None
    text = "".join(traceback.format_exception_only(error)).strip()
    return failed, _portable(error), text, "".join(traceback.format_exception(error))


def _portable(error: BaseException) -> bytes | None:
    """The error, pickled in a way that can be read; or its parts; or nothing.

    An error whose class has an `__init__` of its own can often be pickled, but not read again.
    """
    for form in (error, (type(error), error.args, vars(error))):
        try:
            pickled = pickle.dumps(form, PICKLE_PROTOCOL)
            pickle.loads(pickled)  # noqa: S301 - written one line above
        except Exception:  # noqa: BLE001, S112 - whatever the class does, the other form is tried
            continue
        return pickled
    return None


def _leave_signals_to_parent() -> None:
    """Lets the parent decide what Ctrl-C means; others do what they do by default.

    The parent had SIGINT blocked at the start, so that one which came earlier is ignored too.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(name, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _end_with_parent() -> None:
    """Ends this process when the parent is gone, however that went, and whatever runs here.

    The sentinel is a pipe that only the parent holds at the other end. `PR_SET_PDEATHSIG` would
    end this process already when the parent's thread that started it ends.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    if sys.platform == "linux":
        import fcntl  # noqa: PLC0415 - not on every system

        # Linux sends the signal itself when the pipe breaks: this works even while a function in
        # C holds the interpreter, and needs no thread, which would be in the way of a fork.
        fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(parent.sentinel, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, os.O_ASYNC)
        if select.select([parent.sentinel], [], [], 0)[0]:
            os._exit(1)
    else:
        threading.Thread(target=_watch, args=(parent.sentinel,), daemon=True).start()


def _watch(sentinel: int) -> None:
    os.read(sentinel, 1)
    os._exit(1)


def _keep_to_this_process(pipe: "Connection[bytes, bytes]") -> None:
    """Keeps the pipe from processes that functions start: the parent knows by its end that this
    one is dead.
    """
    os.set_inheritable(pipe.fileno(), False)  # noqa: FBT003 - positional only
    os.register_at_fork(after_in_child=pipe.close)


def _no_memory() -> int:
    return 0


def _memory_meter() -> Callable[[], int]:
    if not _STATM.exists():
        # The most it ever had, which is as near as other systems come.
        unit = 1 if sys.platform == "darwin" else 1024
        return lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    # Kept open: reading it again costs a tenth of opening it.
    statm, page_bytes = os.open(_STATM, os.O_RDONLY), resource.getpagesize()
    return lambda: int(os.pread(statm, 128, 0).split()[1]) * page_bytes


if __name__ == RUN_NAME:
    serve(globals()["pipe"], reports_memory=globals()["reports_memory"])
