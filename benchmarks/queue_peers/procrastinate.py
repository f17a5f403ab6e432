# /// script
# requires-python = ">=3.11"
# dependencies = ["procrastinate==3.10.0", "psycopg[binary]==3.3.9", "uvloop==0.23.0"]
# [tool.uv]
# exclude-newer = "2026-11-22T00:00:00Z"
# ///
"""procrastinate on PostgreSQL.

It fetches one job at a time, so that few at once are best: 5 did 750 to 800 jobs a second, 1 and
30 did 600. Deleting what is done, which is not its default, made no difference.
"""

from queue_peers.measuring import Clock, Progress, asked, batches, library, payload, report, run

_CONCURRENCY = 5
_ENQUEUED_AT_ONCE = 1_000


async def main() -> None:
    task = asked()
    procrastinate = library("procrastinate")
    connector = procrastinate.PsycopgConnector(
        conninfo=task.postgres, min_size=_CONCURRENCY, max_size=_CONCURRENCY + 2
    )
    app = procrastinate.App(connector=connector)
    progress = Progress(task.jobs)

    async def no_op(**arguments: object) -> None:
        del arguments
        progress.ran()

    job = app.task(name="no_op")(no_op)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        clock = Clock()
        for numbers in batches(range(task.jobs), _ENQUEUED_AT_ONCE):
            await job.batch_defer_async(*[payload(number) for number in numbers])
        enqueue_s = clock.seconds()
        # What autovacuum does within a minute: without it a fetch is half as fast.
        await connector.execute_query_async("ANALYZE")
        clock = Clock()
        await app.run_worker_async(
            concurrency=_CONCURRENCY, wait=False, install_signal_handlers=False
        )
        work_s = clock.seconds()
    report(
        "procrastinate",
        task,
        enqueue_s=enqueue_s,
        work_s=work_s,
        note="durable; a finished job's row and three rows of its history are kept",
    )


if __name__ == "__main__":
    run(main())
