# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "taskiq==0.13.0",
#     "taskiq-redis==1.2.4",
#     "redis==8.1.0",
#     "hiredis==3.5.0",
#     "uvloop==0.23.0",
# ]
# [tool.uv]
# exclude-newer = "2026-11-22T00:00:00Z"
# ///
"""taskiq on Valkey.

On a stream, the broker of taskiq-redis that acknowledges and that was faster here than its list;
with no result backend. A hundred jobs at once are its default. It has no bulk call, so it enqueues
32 at once, as the benchmark of streaq does with it.
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
_PREFETCH = 1_000
_ENQUEUED_AT_ONCE = 32


async def main() -> None:
    task = asked()
    broker = library("taskiq_redis").RedisStreamBroker(
        url=task.redis, consumer_id="0", xread_count=_PREFETCH
    )
    ended = asyncio.Event()
    progress = Progress(task.jobs, at_end=ended.set)

    async def no_op(**arguments: object) -> None:
        del arguments
        progress.ran()

    job = broker.task(task_name="no_op")(no_op)
    await broker.startup()
    clock = Clock()
    await by_many(lambda number: job.kiq(**payload(number)), task.jobs, at_once=_ENQUEUED_AT_ONCE)
    enqueue_s = clock.seconds()

    client = library("redis.asyncio").from_url(task.redis)

    async def is_done() -> bool:
        pending = await client.xpending(broker.queue_name, broker.consumer_group_name)
        left: int = pending["pending"]
        return left == 0

    broker.is_worker_process = True
    receiver = library("taskiq.receiver").Receiver(
        broker, max_async_tasks=_CONCURRENCY, max_prefetch=_PREFETCH, run_startup=False
    )
    stop = asyncio.Event()
    clock = Clock()
    working = asyncio.create_task(receiver.listen(stop))
    await ended.wait()
    await until(is_done)
    work_s = clock.seconds()
    stop.set()
    await working
    await broker.shutdown()
    report(
        "taskiq",
        task,
        enqueue_s=enqueue_s,
        work_s=work_s,
        note="a second may be lost; a finished job's message stays in the stream, no results",
    )


if __name__ == "__main__":
    run(main())
