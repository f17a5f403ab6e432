"""A supervisor of two processes; `test_supervisor.py` starts it, signals it and kills it."""

import asyncio
import os
import random
import sys
from pathlib import Path

from mailrace.clock import SystemClock
from mailrace.events import Events
from mailrace.queue.stores.sqlite import SqliteStore
from mailrace.queue.supervisor import Supervisor
from mailrace.queue.supervisor_settings import SupervisorSettings


async def main(folder: Path, like: str) -> None:
    script = str(Path(__file__).with_name("supervised.py"))
    store = SqliteStore.open(folder / "jobs.db", SystemClock())
    try:
        await Supervisor(
            store,
            lambda number: [
                sys.executable,
                "-I",
                script,
                str(folder / "reports"),
                str(number),
                like,
            ],
            os.environ,
            clock=SystemClock(),
            rng=random.Random(),
            events=Events(),
            settings=SupervisorSettings(processes=2, name="one", kill_after_s=0.5),
        ).run()
    finally:
        await store.close()


if sys.argv[3] == "uvloop":
    import uvloop

    uvloop.run(main(Path(sys.argv[1]), sys.argv[2]))
else:
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
