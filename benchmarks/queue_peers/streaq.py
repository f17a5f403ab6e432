# /// script
# requires-python = ">=3.11"
# dependencies = ["streaq==7.2.0", "coredis==6.9.0", "uvloop==0.23.0"]
# [tool.uv]
# exclude-newer = "2026-11-22T00:00:00Z"
# ///
"""streaq on Valkey.

With 32 jobs at once, as in its own benchmark; from 16 to 300 it works off equally many, as its
process is busy all the time with some fourteen commands a job.
"""

from queue_peers.measuring import Clock, Progress, asked, batches, library, payload, report, run

_CONCURRENCY = 32
_ENQUEUED_AT_ONCE = 1_000


async def main() -> None:
    task = asked()
    worker = library("streaq").Worker(
        redis_url=task.redis, concurrency=_CONCURRENCY, handle_signals=False
    )
    progress = Progress(task.jobs)

    async def no_op(**arguments: object) -> None:
        del arguments
        progress.ran()

    job = worker.task(name="no_op")(no_op)
    async with worker:
        clock = Clock()
        for numbers in batches(range(task.jobs), _ENQUEUED_AT_ONCE):
            await worker.enqueue_many([job.enqueue(**payload(number)) for number in numbers])
        enqueue_s = clock.seconds()
    worker.burst = True
    clock = Clock()
    await worker.run_async()
    work_s = clock.seconds()
    if not progress.all_ran:
        raise RuntimeError("the worker ended before the last job")
    report(
        "streaq",
        task,
        enqueue_s=enqueue_s,
        work_s=work_s,
        note="a second may be lost; a finished job's result is kept for five minutes",
    )


if __name__ == "__main__":
    run(main())
