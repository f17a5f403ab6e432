"""A worker process as a supervisor starts them; `test_fleet.py` counts what its jobs did."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from mailrace.jobs import Handlers, WorkerSettings, open_worker
from mailrace.queue.children import RESTART
from mailrace.queue.parent import SUPERVISOR, parent_fd, parent_gone


async def main(store: str, done: Path) -> int:
    handlers = Handlers()
    far_side = os.open(done, os.O_WRONLY | os.O_APPEND)

    @handlers.register("write")
    async def write(payload: int) -> None:
        await asyncio.sleep(0.01)
        os.write(far_side, b"%d %d\n" % (payload, os.getpid()))

    supervisor, fd = os.environ[SUPERVISOR], parent_fd(os.environ)
    assert fd is not None
    settings = WorkerSettings(concurrency=4, buffer=20)
    async with open_worker(store, handlers, settings=settings, supervisor=supervisor) as worker:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, worker.drain)
        gone = parent_gone(fd)
        watching = asyncio.create_task(gone.wait())
        watching.add_done_callback(lambda _: worker.drain())
        await worker.run()
        watching.cancel()
        return RESTART if worker.restart else 0


sys.exit(asyncio.run(main(sys.argv[1], Path(sys.argv[2]))))
