# /// script
# requires-python = ">=3.11"
# dependencies = ["pgqueuer==1.6.0", "asyncpg==0.32.0", "uvloop==0.23.0"]
# [tool.uv]
# exclude-newer = "2026-11-22T00:00:00Z"
# ///
"""pgqueuer on PostgreSQL.

With asyncpg, which its documentation (docs/development/benchmark.md) measures as 1.7 times as fast
as psycopg, through a pool, which was 1.07 times as fast here as one connection. The batch is the
size of a fetch and of a flush of outcomes: with the default of 10 it did 1,700 jobs a second, with
100 12,000, and no more with 3,000 than with 1,000. The number of jobs at once is left unlimited,
as it is by default; a limit costs a quarter. Its drain mode is what its own benchmark runs.
"""

import json

from queue_peers.measuring import Clock, Progress, asked, batches, library, payload, report, run

_BATCH = 1_000
_ENQUEUED_AT_ONCE = 5_000


async def main() -> None:
    task = asked()
    pgqueuer, asyncpg = library("pgqueuer"), library("asyncpg")
    connection = await asyncpg.connect(task.postgres)
    queries = pgqueuer.Queries(pgqueuer.AsyncpgDriver(connection))
    await queries.install()

    clock = Clock()
    for numbers in batches(range(task.jobs), _ENQUEUED_AT_ONCE):
        count = len(numbers)
        data = [json.dumps(payload(number)).encode() for number in numbers]
        await queries.enqueue(["no_op"] * count, data, [0] * count)
    enqueue_s = clock.seconds()

    # What autovacuum does within a minute.
    await connection.execute("ANALYZE")

    progress = Progress(task.jobs)

    async def no_op(job: object) -> None:
        del job
        progress.ran()

    worker = pgqueuer.PgQueuer.from_asyncpg_pool(await asyncpg.create_pool(task.postgres))
    worker.entrypoint("no_op", accepts_context=False)(no_op)
    drain = library("pgqueuer.types").QueueExecutionMode.drain
    clock = Clock()
    await worker.run(batch_size=_BATCH, mode=drain)
    work_s = clock.seconds()
    left = await connection.fetchval("SELECT count(*) FROM pgqueuer")
    if left:
        raise RuntimeError(f"{left} jobs are left")
    report(
        "pgqueuer",
        task,
        enqueue_s=enqueue_s,
        work_s=work_s,
        note="durable; a finished job's row is deleted, three rows of its history are kept",
    )


if __name__ == "__main__":
    run(main())
