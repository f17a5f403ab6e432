# /// script
# requires-python = ">=3.11"
# dependencies = ["huey==3.5.4", "redis==8.1.0", "hiredis==3.5.0"]
# [tool.uv]
# exclude-newer = "2026-11-22T00:00:00Z"
# ///
"""huey on SQLite if it is given a file, and on Valkey otherwise.

It has no bulk call. With 1 to 8 threads it works off equally many. On SQLite every commit is
synced, which is not its default.
"""

import threading

from queue_peers.measuring import Clock, Progress, asked, leave, library, payload, report

_THREADS = 2
_NOTES = {
    "sqlite": "durable, but taken out before it runs: lost if the worker dies; nothing is kept",
    "valkey": "a second may be lost, and a job if its worker dies as it runs; nothing is kept",
}


def main() -> None:
    task = asked()
    huey = library("huey")
    queue = (
        huey.SqliteHuey("peer", filename=task.sqlite, fsync=True)
        if task.sqlite
        else huey.RedisHuey("peer", url=task.redis)
    )
    ended = threading.Event()
    progress = Progress(task.jobs, at_end=ended.set)

    def no_op(**arguments: object) -> None:
        del arguments
        progress.ran()

    job = queue.task(name="no_op")(no_op)
    clock = Clock()
    for number in range(task.jobs):
        job(**payload(number))
    enqueue_s = clock.seconds()

    consumer = queue.create_consumer(workers=_THREADS, worker_type="thread", periodic=False)
    clock = Clock()
    consumer.start()
    ended.wait()
    work_s = clock.seconds()
    report("huey", task, enqueue_s=enqueue_s, work_s=work_s, note=_NOTES[task.store])
    leave()


if __name__ == "__main__":
    main()
