"""What a worker has for functions that must not run on the loop: a thread and a process."""

import inspect
import threading
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mailrace.errors import MisuseError
from mailrace.pool.driving import settled
from mailrace.pool.errors import JobCancelledError
from mailrace.pool.job import Job
from mailrace.pool.options import Kind
from mailrace.pool.processes import WorkerProcess
from mailrace.pool.threads import WorkerThread

if TYPE_CHECKING:
    import asyncio

    from mailrace.pool.engine import Engine

AnyJob = Job[Any]

# A process is killed in the middle of a call. Where that has not begun yet, it will have soon.
_KILL_AGAIN_S: Final = 0.02
_PROCESS_END_S: Final = 2.0


class Offload:
    """Runs functions where they belong. Thread and process come with the first that needs them."""

    __slots__ = ("_engine", "_number", "_present", "_process", "_thread")

    def __init__(self, engine: "Engine", number: int) -> None:
        self._engine = engine
        self._number = number
        self._thread: WorkerThread | None = None
        self._process: WorkerProcess | None = None
        self._present: AnyJob | None = None

    async def execute(self, job: AnyJob) -> object:
        """Runs a job's function in the place of its kind."""
        worker = job.worker
        if worker is None or worker.job is not job or worker.ending is not None:
            raise JobCancelledError(f"job {job.id} has ended", hint="plugins: begin nothing more")
        kwargs = job.kwargs or {}
        if job.kind is Kind.LOOP:
            return await settled(job.function(*job.args, **kwargs))
        if job.kind is Kind.THREAD:
            value = await self._in_thread(job.function, job.args, kwargs)
        else:
            value = await self._in_process(job, kwargs)
        if inspect.iscoroutine(value):
            value.close()
            raise MisuseError(
                f"{job.name} returned a coroutine in a {job.kind}",
                hint='submit it with options(kind="loop")',
            )
        return value

    def kill(self, job: AnyJob) -> None:
        """Kills the process that has a job, now or as soon as it has it."""
        if self._present is not job:
            return
        if self._process is None or not self._process.kill():
            engine = self._engine
            engine.timers.at(engine.now() + _KILL_AGAIN_S, partial(self.kill, job))

    async def end(self) -> None:
        """Ends the process, before the thread that waits for that ends itself."""
        if self._process is not None:
            await self._in_thread(self._process.close, (_PROCESS_END_S,), {})
            self._process = None

    def abort(self) -> None:
        """Lets go of both, whatever they do; does not wait."""
        if self._thread is not None:
            self._thread.close()
        if self._process is not None:  # its own thread may be busy with it
            threading.Thread(target=self._process.close, args=(0.0,), daemon=True).start()

    async def _in_process(self, job: AnyJob, kwargs: dict[str, Any]) -> object:
        if self._process is None:
            settings = self._engine.settings
            self._process = WorkerProcess(
                f"{self._engine.name} process {self._number}",
                recycle_after=settings.recycle_after,
                memory_max_bytes=settings.process_memory_max_bytes,
            )
        self._present = job
        try:
            return await self._in_thread(self._process.call, (job.function, job.args, kwargs), {})
        finally:
            self._present = None

    async def _in_thread(
        self, function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> object:
        if self._thread is None:
            self._thread = WorkerThread(
                f"{self._engine.name} thread {self._number}", self._engine.returns
            )
        returned: asyncio.Future[tuple[object, BaseException | None]]
        returned = self._engine.loop.create_future()

        def done(value: object, error: BaseException | None) -> None:
            if not returned.done():
                returned.set_result((value, error))

        self._thread.start(function, args, kwargs, copy_context(), done)
        try:
            value, error = await returned
        except BaseException:  # a plugin's own time limit: the call goes on, but not in our way
            self.abort()
            self._thread = self._process = None
            raise
        if error is not None:
            raise error
        return value
