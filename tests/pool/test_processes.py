"""Processes that run functions, and what becomes of a call when one dies."""

import asyncio
import atexit
import contextvars
import errno
import gc
import math
import operator
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NoReturn

import pytest

from mailrace.errors import MisuseError, RejectedError, UnavailableError
from mailrace.pool import spawned
from mailrace.pool.processes import FunctionFailedError, ProcessDiedError, WorkerProcess
from mailrace.pool.threads import Returns, WorkerThread

WAIT_S = 60.0
LARGE_BYTES = 64 << 20

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


class OddError(Exception):
    """Can be pickled, but not read again the usual way."""

    def __init__(self, first: str, second: int) -> None:
        super().__init__(f"{first} {second}")
        self.second = second


class LockedError(Exception):
    def __init__(self) -> None:
        super().__init__("with a lock in it")
        self.lock = threading.Lock()


class Unreadable:
    """A value that can be pickled and not read."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return int, ("no number",)


class Local:
    """A value that can be read in this process only."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[int]]:
        return here_only, (os.getpid(),)


def here_only(pid: int) -> object:
    if pid != os.getpid():
        raise ValueError("far from home")
    return None


def fail(error: BaseException) -> NoReturn:
    raise error


def fail_oddly() -> NoReturn:
    raise OddError("odd", 7)


def fail_locked() -> NoReturn:
    raise LockedError


def reject() -> NoReturn:
    raise RejectedError("the password is wrong", hint="look it up")


def announce_and_wait(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(WAIT_S)


def large_after(path: str) -> bytes:
    Path(path).touch()
    return bytes(LARGE_BYTES)


def leave_behind(fork: bool) -> int:
    """Leaves a process of its own, one that inherits what it can; returns its number."""
    if fork:
        pid = os.fork()
        if pid == 0:
            time.sleep(10 * WAIT_S)
            os._exit(0)
        return pid
    return subprocess.Popen(["sleep", str(10 * WAIT_S)], close_fds=False).pid


def how_signals_stand() -> tuple[bool, ...]:
    return (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
        signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
        signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set(),
    )


def own_process() -> bool:
    import multiprocessing  # noqa: PLC0415 - runs elsewhere

    child = multiprocessing.get_context("spawn").Process(target=os.getpid)
    child.start()
    child.join()
    return child.exitcode == 0


def leave_slowly(path: str) -> None:
    atexit.register(Path(path).touch)
    atexit.register(time.sleep, 0.3)


class Keeper:
    """What a function leaves in its process."""

    held: list[bytes] = []  # noqa: RUF012 - module state is what is tested


def hold(number_bytes: int) -> int:
    Keeper.held.append(b"x" * number_bytes)
    return os.getpid()


@pytest.fixture
def process() -> Iterator[WorkerProcess]:
    worker = WorkerProcess("worker")
    yield worker
    worker.close(WAIT_S)


def call(process: WorkerProcess, function: Callable[..., object], *args: object) -> Any:
    return process.call(function, args, {})


def call_aside(
    process: WorkerProcess, function: Callable[..., object], *args: object
) -> Future[object]:
    future: Future[object] = Future()

    def run() -> None:
        try:
            future.set_result(process.call(function, args, {}))
        except BaseException as error:  # noqa: BLE001 - handed over
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def wait_for(true: Callable[[], object]) -> None:
    until_s = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < until_s, "waited in vain"
        time.sleep(0.005)


def is_running(pid: int) -> bool:
    """Whether there is such a process that is more than a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def died(future: Future[object]) -> ProcessDiedError:
    error = future.exception(WAIT_S)
    assert isinstance(error, ProcessDiedError)
    return error


def test_a_function_runs_in_a_process_that_is_made_once(process: WorkerProcess) -> None:
    assert (process.pid, process.alive) == (None, False)
    pid = call(process, os.getpid)
    assert pid != os.getpid()
    assert (process.pid, process.alive) == (pid, True)
    assert process.call(sorted, ([1, 3, 2],), {"reverse": True}) == [3, 2, 1]
    assert call(process, os.getpid) == pid


def test_a_process_brings_nothing_of_mailrace_that_no_function_needs(
    process: WorkerProcess,
) -> None:
    assert call(process, eval, "'mailrace' in __import__('sys').modules") is False


@pytest.mark.parametrize(
    ("function", "args"),
    [(lambda: None, ()), (len, (threading.Lock(),)), (len, (iter(lambda: 1, 2),))],
)
def test_what_cannot_be_pickled_is_misuse_and_is_not_sent(
    process: WorkerProcess, function: Callable[..., object], args: tuple[object, ...]
) -> None:
    with pytest.raises(MisuseError, match=r"(lambda|len).* cannot be handed .*module-level"):
        call(process, function, *args)
    assert not process.alive
    assert call(process, len, "abc") == 3


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        FileNotFoundError(errno.ENOENT, "gone", "file"),
        SystemExit(3),
        KeyboardInterrupt("stop"),
    ],
)
def test_an_error_comes_back_as_it_was_with_the_traceback_of_its_process(
    process: WorkerProcess, error: BaseException
) -> None:
    with pytest.raises(type(error)) as raised:
        call(process, fail, error)
    assert str(raised.value) == str(error)
    assert vars(raised.value) == vars(error)
    trace = str(raised.value.__cause__)
    assert "in fail" in trace
    assert "child.py" not in trace, "our own frames tell nobody anything"
    assert call(process, len, "abc") == 3


def test_an_error_with_an_init_of_its_own_comes_back_as_it_was(process: WorkerProcess) -> None:
    with pytest.raises(OddError, match="odd 7") as raised:
        call(process, fail_oddly)
    assert raised.value.second == 7


def test_an_error_of_ours_comes_back_as_it_was(process: WorkerProcess) -> None:
    with pytest.raises(RejectedError, match="password is wrong; look it up") as raised:
        call(process, reject)
    assert raised.value.hint == "look it up"


def test_an_error_that_cannot_be_pickled_comes_back_as_its_text(process: WorkerProcess) -> None:
    with pytest.raises(FunctionFailedError, match="LockedError: with a lock in it") as raised:
        call(process, fail_locked)
    assert "in fail_locked" in str(raised.value.__cause__)
    assert call(process, len, "abc") == 3


@pytest.mark.parametrize(
    ("function", "args", "problem"),
    [
        (threading.Lock, (), "result of .*lock.* cannot be pickled: .*cannot pickle"),
        (Unreadable, (), "result of .*Unreadable cannot be read: .*no number"),
        (type, (Local(),), "type cannot be read in its process: ValueError: far from home"),
    ],
)
def test_what_cannot_travel_is_misuse_and_both_sides_go_on(
    process: WorkerProcess, function: Callable[..., object], args: tuple[object, ...], problem: str
) -> None:
    pid = call(process, os.getpid)
    with pytest.raises(MisuseError, match=problem):
        call(process, function, *args)
    assert call(process, os.getpid) == pid


@pytest.mark.parametrize(
    ("function", "args", "exit_code", "signal_name"),
    [
        (os._exit, (3,), 3, ""),
        (os._exit, (0,), 0, ""),
        (os.kill, (0, signal.SIGKILL), -9, "SIGKILL"),
        (os.abort, (), -6, "SIGABRT"),
        (eval, ("__import__('ctypes').string_at(0)",), -11, "SIGSEGV"),
    ],
)
def test_a_death_costs_one_call_and_says_how_it_came(
    process: WorkerProcess,
    function: Callable[..., object],
    args: tuple[Any, ...],
    exit_code: int,
    signal_name: str,
) -> None:
    first = call(process, os.getpid)
    if function is os.kill:
        args = (first, signal.SIGKILL)
    with pytest.raises(ProcessDiedError) as raised:
        call(process, function, *args)
    assert isinstance(raised.value, UnavailableError)
    assert (raised.value.exit_code, raised.value.signal_name) == (exit_code, signal_name)
    assert (signal_name or f"exit code {exit_code}") in raised.value.problem
    assert not process.alive
    assert call(process, os.getpid) != first


def test_a_process_that_died_between_calls_costs_none(process: WorkerProcess) -> None:
    first = call(process, os.getpid)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: not process.alive)
    assert call(process, os.getpid) != first


def test_a_kill_ends_the_call_and_the_next_has_a_new_process(
    process: WorkerProcess, tmp_path: Path
) -> None:
    path = tmp_path / "running"
    future = call_aside(process, announce_and_wait, str(path))
    wait_for(lambda: path.exists() and path.read_text())
    assert process.kill()
    assert "killed on purpose" in died(future).hint
    first = int(path.read_text())
    assert not is_running(first)
    assert call(process, os.getpid) != first


def test_a_kill_between_calls_costs_none_and_can_be_done_again(process: WorkerProcess) -> None:
    assert not process.kill()
    first = call(process, os.getpid)
    assert not process.kill()
    assert not process.kill()
    assert not process.alive
    # At once: the system may not be done with the old one.
    assert call(process, os.getpid) != first


def test_a_kill_while_the_process_is_made_ends_the_call(
    process: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = spawned._start
    killed: list[bool] = []

    def start_and_kill(child: Any) -> None:
        start(child)
        killed.append(process.kill())

    monkeypatch.setattr(spawned, "_start", start_and_kill)
    with pytest.raises(ProcessDiedError, match="killed on purpose"):
        call(process, os.getpid)
    assert killed == [True]
    monkeypatch.undo()
    assert call(process, len, "abc") == 3


def test_a_kill_in_the_middle_of_sending_ends_the_call(process: WorkerProcess) -> None:
    pid = call(process, os.getpid)
    os.kill(pid, signal.SIGSTOP)  # so that it takes only what the socket holds
    future = call_aside(process, len, bytes(LARGE_BYTES))
    wait_for(lambda: process._calling)
    with pytest.raises(TimeoutError):
        future.result(0.1)
    assert process.kill()
    assert died(future).signal_name == "SIGKILL"
    assert call(process, len, bytes(LARGE_BYTES)) == LARGE_BYTES


def test_a_death_in_the_middle_of_receiving_ends_the_call(
    process: WorkerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = call(process, os.getpid)
    path = tmp_path / "running"
    read = os.read

    def die_first(descriptor: int, size: int) -> bytes:
        data = read(descriptor, size)
        if size > LARGE_BYTES // 2 and data:
            os.kill(pid, signal.SIGKILL)
        return data

    connection = sys.modules["multiprocessing.connection"]
    monkeypatch.setattr(connection.Connection._recv, "__defaults__", (die_first,))
    with pytest.raises(ProcessDiedError, match="SIGKILL"):
        call(process, large_after, str(path))
    monkeypatch.undo()
    assert len(call(process, large_after, str(path))) == LARGE_BYTES


def test_a_death_concerns_no_other_process(process: WorkerProcess, tmp_path: Path) -> None:
    other = WorkerProcess("other")
    try:
        kept = call(other, os.getpid)
        future = call_aside(other, time.sleep, 0.2)
        with pytest.raises(ProcessDiedError):
            call(process, os.abort)
        assert future.result(WAIT_S) is None
        assert call(other, os.getpid) == kept
    finally:
        other.close(WAIT_S)


@linux
@pytest.mark.parametrize("fork", [False, True])
def test_a_process_that_a_function_left_behind_hides_no_death(
    process: WorkerProcess, fork: bool
) -> None:
    left = call(process, leave_behind, fork)
    try:
        assert died(call_aside(process, os._exit, 3)).exit_code == 3
        assert is_running(left)
    finally:
        os.kill(left, signal.SIGKILL)


def test_signals_are_left_to_the_parent(process: WorkerProcess) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    try:
        assert call(process, how_signals_stand) == (True, True, True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    pid = call(process, os.getpid)
    os.kill(pid, signal.SIGINT)
    assert call(process, os.getpid) == pid


def test_a_sigint_while_the_process_starts_is_ignored_too(
    process: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = spawned._start

    def start_and_interrupt(child: Any) -> None:
        start(child)
        os.kill(child.pid, signal.SIGINT)

    monkeypatch.setattr(spawned, "_start", start_and_interrupt)
    assert call(process, len, "abc") == 3


def test_functions_may_have_processes_of_their_own(process: WorkerProcess) -> None:
    assert call(process, own_process) is True


def test_context_variables_do_not_travel(process: WorkerProcess) -> None:
    variable = contextvars.ContextVar("variable", default=0)
    variable.set(1)
    with pytest.raises(MisuseError, match="cannot be handed"):
        call(process, variable.get)


@linux
def test_an_idle_process_holds_nothing_of_its_last_call(process: WorkerProcess) -> None:
    memory = "int(open('/proc/self/statm').read().split()[1]) * 4096"
    before = call(process, eval, memory)
    assert call(process, bytes, bytes(LARGE_BYTES)) == bytes(LARGE_BYTES)
    assert call(process, eval, memory) < before + LARGE_BYTES // 2


def test_a_process_is_replaced_after_its_number_of_calls() -> None:
    process = WorkerProcess("worker", recycle_after=3)
    try:
        pids = [call(process, os.getpid) for _ in range(7)]
    finally:
        process.close(WAIT_S)
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]


def test_a_process_is_replaced_after_the_call_that_left_it_too_large() -> None:
    process = WorkerProcess("worker", memory_max_bytes=200 << 20)
    try:
        first = call(process, hold, 1)
        assert call(process, hold, 1) == first
        assert call(process, hold, 250 << 20) == first
        assert not process.alive
        assert call(process, hold, 1) != first
    finally:
        process.close(WAIT_S)


def test_a_closed_process_has_left_and_takes_no_call() -> None:
    process = WorkerProcess("worker")
    pid = call(process, os.getpid)
    process.close(WAIT_S)
    process.close(WAIT_S)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not process.kill()
    with pytest.raises(MisuseError, match="process worker is closed"):
        call(process, os.getpid)


def test_a_close_lets_the_present_call_finish_and_the_process_leave(tmp_path: Path) -> None:
    process = WorkerProcess("worker")
    goodbye = tmp_path / "goodbye"
    call(process, leave_slowly, str(goodbye))
    future = call_aside(process, time.sleep, 0.3)
    wait_for(lambda: process._calling)
    process.close(WAIT_S)
    assert future.result(WAIT_S) is None
    assert goodbye.exists(), "it went by itself"


def test_a_close_kills_what_does_not_end_in_time(tmp_path: Path) -> None:
    process = WorkerProcess("worker")
    path = tmp_path / "running"
    future = call_aside(process, announce_and_wait, str(path))
    wait_for(lambda: path.exists() and path.read_text())
    began_s = time.monotonic()
    process.close(0.1)
    assert time.monotonic() - began_s < WAIT_S / 2
    assert died(future).signal_name == "SIGKILL"


def test_a_process_goes_with_its_object() -> None:
    process = WorkerProcess("worker")
    pid = call(process, os.getpid)
    watched = weakref.ref(process)
    del process
    gc.collect()
    assert watched() is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@linux
def test_twenty_deaths_leave_no_descriptor_and_no_zombie(process: WorkerProcess) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    call(process, os.getpid)  # makes the resource tracker, too
    before = descriptors()
    pids = []
    for _ in range(20):
        pids.append(call(process, os.getpid))
        process.kill()
    kept = call(process, os.getpid)
    assert len({*pids, kept}) == 21
    assert descriptors() == before
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


def test_a_machine_without_processes_to_spare_is_unavailable(
    process: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(child: Any) -> NoReturn:
        raise BlockingIOError(errno.EAGAIN, "try again")

    monkeypatch.setattr(spawned, "_start", start)
    with pytest.raises(UnavailableError, match="process worker cannot be started"):
        call(process, os.getpid)
    monkeypatch.undo()
    assert call(process, len, "abc") == 3


async def test_a_worker_thread_carries_the_call_and_the_loop_kills_it(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    thread, process = WorkerThread("worker", Returns(loop)), WorkerProcess("worker")
    path = tmp_path / "running"
    future: asyncio.Future[tuple[object, BaseException | None]] = loop.create_future()
    thread.start(
        process.call,
        (announce_and_wait, (str(path),), {}),
        {},
        contextvars.copy_context(),
        lambda value, error: future.set_result((value, error)),
    )
    await asyncio.to_thread(wait_for, path.exists)
    assert process.kill()
    value, error = await asyncio.wait_for(future, WAIT_S)
    assert value is None
    assert isinstance(error, ProcessDiedError)
    thread.close()
    assert thread.join(WAIT_S)
    process.close(WAIT_S)


PROGRAM = """
    import contextlib, os, threading, time
    from mailrace.pool.processes import WorkerProcess

    def aside(process, *call):
        def run():
            with contextlib.suppress(Exception):
                process.call(*call)

        threading.Thread(target=run, daemon=True).start()

    def compute():
        print("computing", os.getpid(), flush=True)
        pow(3, 10**9)  # for minutes, and with the interpreter held

    if __name__ == "__main__":
        process = WorkerProcess("worker")
"""


def start_program(tmp_path: Path, rest: str) -> subprocess.Popen[str]:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM) + textwrap.indent(textwrap.dedent(rest), "    "))
    return subprocess.Popen(
        [sys.executable, "-W", "error", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@linux
@pytest.mark.parametrize("busy", [False, True])
def test_a_program_that_leaves_without_a_close_ends_well_and_leaves_no_process(
    tmp_path: Path, busy: bool
) -> None:
    program = start_program(
        tmp_path,
        f"""
        print("process", process.call(os.getpid, (), {{}}), flush=True)
        if {busy}:
            aside(process, compute, (), {{}})
            time.sleep(0.5)
        """,
    )
    written, errors = program.communicate(timeout=WAIT_S)
    pid = int(written.split()[1])
    assert (program.returncode, errors) == (0, "")
    assert not is_running(pid)


@linux
def test_a_process_ends_with_its_parent_even_while_it_computes(tmp_path: Path) -> None:
    program = start_program(tmp_path, "process.call(compute, (), {})")
    assert program.stdout is not None
    pid = int(program.stdout.readline().split()[1])
    assert is_running(pid)
    program.kill()
    wait_for(lambda: not is_running(pid))
    program.communicate(timeout=WAIT_S)


def test_a_process_outlives_the_thread_that_made_it(process: WorkerProcess) -> None:
    made: list[object] = []
    thread = threading.Thread(target=lambda: made.append(call(process, os.getpid)))
    thread.start()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    assert [call(process, os.getpid)] == made


def test_a_main_program_without_its_guard_is_named_as_the_cause(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os\n"
        "from mailrace.pool.processes import WorkerProcess\n"
        "print(WorkerProcess('worker').call(os.getpid, (), {}))\n"
    )
    ran = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert ran.returncode == 1
    assert "__main__" in ran.stderr.splitlines()[-1]
    assert "ProcessDiedError" in ran.stderr


@pytest.mark.parametrize("way", ["standard input", "-c"])
def test_a_main_program_that_is_no_file_is_named_as_the_cause(way: str, tmp_path: Path) -> None:
    program = (
        "from mailrace.pool.processes import WorkerProcess\n"
        "def work():\n"
        "    return 1\n"
        "if __name__ == '__main__':\n"
        "    WorkerProcess('worker').call(work, (), {})\n"
    )
    ran = subprocess.run(
        [sys.executable, *(["-"] if way == "standard input" else ["-c", program])],
        input=program if way == "standard input" else "",
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert ran.returncode == 1
    assert "put the function into a module" in ran.stderr.splitlines()[-1]


def test_results_are_exact(process: WorkerProcess) -> None:
    for size in (0, 1, 16383, 16384, 16385, 1 << 20):
        assert call(process, operator.mul, b"ab", size) == b"ab" * size
    assert call(process, math.factorial, 500) == math.factorial(500)
    assert pickle.loads(call(process, pickle.dumps, {"a": [1.5, None]})) == {"a": [1.5, None]}
