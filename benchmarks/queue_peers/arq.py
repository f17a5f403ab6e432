# /// script
# requires-python = ">=3.11"
# dependencies = ["arq==0.28.0", "redis==5.3.1", "hiredis==3.5.0", "uvloop==0.23.0"]
# [tool.uv]
# exclude-newer = "2026-11-22T00:00:00Z"
# ///
"""arq on Valkey.

It has no bulk call, so it enqueues 32 at once, as the benchmark of streaq does with it. It polls:
with the default of half a second it would start only `max_jobs` jobs in that time. From 10 to 300
jobs at once it works off equally many.
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

_CONCURRENCY = 100
_POLL_S = 0.001
_ENQUEUED_AT_ONCE = 32


async def main() -> None:
    task = asked()
    arq = library("arq")
    settings = arq.connections.RedisSettings.from_dsn(task.redis)
    pool = await arq.create_pool(settings)
    clock = Clock()
    await by_many(
        lambda number: pool.enqueue_job("no_op", **payload(number)),
        task.jobs,
        at_once=_ENQUEUED_AT_ONCE,
    )
    enqueue_s = clock.seconds()

    ended = asyncio.Event()
    progress = Progress(task.jobs, at_end=ended.set)

    async def no_op(context: object, **arguments: object) -> None:
        del context, arguments
        progress.ran()

    async def is_done() -> bool:
        left: int = await pool.zcard(pool.default_queue_name)
        return left == 0

    worker = arq.Worker(
        [arq.func(no_op, name="no_op")],
        redis_settings=settings,
        max_jobs=_CONCURRENCY,
        poll_delay=_POLL_S,
        handle_signals=False,
    )
    clock = Clock()
    working = asyncio.create_task(worker.async_run())
    await ended.wait()
    await until(is_done)
    work_s = clock.seconds()
    working.cancel()
    await asyncio.wait([working])
    report(
        "arq",
        task,
        enqueue_s=enqueue_s,
        work_s=work_s,
        note="a second may be lost; a finished job's result is kept for an hour",
    )


if __name__ == "__main__":
    run(main())
