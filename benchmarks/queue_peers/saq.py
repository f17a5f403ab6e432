# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "saq[redis,postgres,hiredis]==0.26.4",
#     "psycopg[binary]==3.3.9",
#     "redis==7.4.1",
#     "hiredis==3.5.0",
#     "uvloop==0.23.0",
# ]
# [tool.uv]
# exclude-newer = "2026-11-22T00:00:00Z"
# ///
"""SAQ on PostgreSQL if it is given one, and on Valkey otherwise.

It has no bulk call that does not wait for the results, so it enqueues twenty at once, as its own
benchmark does (benchmarks/simple.py); with 10 to 100 jobs at once it works off equally many.
"""

import asyncio

from queue_peers.measuring import (
    Clock,
    Progress,
    asked,
    by_many,
    library,
    payload,
    report,
    run,
    until,
)

_CONCURRENCY = 20
_NOTES = {
    "postgresql": "durable; a finished job's row is kept for ten minutes",
    "valkey": "a second may be lost; a finished job's record is kept for ten minutes",
}


async def main() -> None:
    task = asked()
    saq = library("saq")
    queue = saq.Queue.from_url(task.postgres or task.redis)
    await queue.connect()
    clock = Clock()
    await by_many(
        lambda number: queue.enqueue("no_op", **payload(number)), task.jobs, at_once=_CONCURRENCY
    )
    enqueue_s = clock.seconds()

    ended = asyncio.Event()
    progress = Progress(task.jobs, at_end=ended.set)

    async def no_op(context: object, **arguments: object) -> None:
        del context, arguments
        progress.ran()

    async def is_done() -> bool:
        left: int = await queue.count("incomplete")
        return left == 0

    if task.postgres:
        # What autovacuum does within a minute.
        async with queue.pool.connection() as connection:
            await connection.execute("ANALYZE")
    worker = saq.Worker(queue, [("no_op", no_op)], concurrency=_CONCURRENCY)
    clock = Clock()
    working = asyncio.create_task(worker.start())
    await ended.wait()
    await until(is_done)
    work_s = clock.seconds()
    await worker.stop()
    await working
    await queue.disconnect()
    report("saq", task, enqueue_s=enqueue_s, work_s=work_s, note=_NOTES[task.store])


if __name__ == "__main__":
    run(main())
