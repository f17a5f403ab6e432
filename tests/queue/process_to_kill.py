"""A process that works a batch off; `test_kill.py` starts it and kills it.

Each attempt, once committed, appends a line `job lease attempt` to a file: that is the far side. A
byte on standard output tells that a job went out.
"""

import asyncio
import os
import random
import sys
from pathlib import Path
from uuid import uuid4

from mailrace.clock import SystemClock
from mailrace.events import Events
from mailrace.pool import NoLimit, RetrySchedule
from mailrace.queue import (
    ClaimedJob,
    Gate,
    Place,
    Result,
    Runner,
    RunnerSettings,
    Step,
    boot_id,
)
from mailrace.queue.stores.sqlite import SqliteStore


async def main(folder: Path, batch_id: int) -> None:
    far_side = os.open(folder / "handed-over", os.O_WRONLY | os.O_APPEND)

    async def handler(job: ClaimedJob, gate: Gate) -> Result:
        await gate.permit()
        await asyncio.sleep(0.001 * random.random())
        gate.commit()
        os.write(far_side, b"%d %d %d\n" % (job.id, job.lease, job.attempt))
        os.write(1, b".")
        await asyncio.sleep(0.003 * random.random())
        if job.id % 7 == 0 and job.attempt == 1:
            return Result(Step.RETRY, "451", "later")
        return Result(Step.FAIL if job.id % 11 == 0 else Step.COMPLETE, "reason", "detail")

    store = SqliteStore.open(folder / "jobs.db", SystemClock())
    try:
        (batch,) = [batch for batch in await store.batches() if batch.id == batch_id]
        await Runner(
            store=store,
            batch=batch,
            handler=handler,
            limiter=NoLimit(),
            settings=RunnerSettings(
                place=Place(journals=folder / "journals", boot=boot_id()),
                workers=10,
                retry=RetrySchedule((0.05,)),
            ),
            clock=SystemClock(),
            names=uuid4,
            events=Events(),
        ).run()
    finally:
        await store.close()


asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
