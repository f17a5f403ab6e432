# /// script
# requires-python = ">=3.11"
# dependencies = ["dramatiq[redis]==2.2.1", "redis==8.1.0", "hiredis==3.5.0"]
# [tool.uv]
# exclude-newer = "2026-11-22T00:00:00Z"
# ///
"""Dramatiq on Valkey.

Its command starts processes that run this `Worker` each; here it runs once, in this process. It has
no bulk call. It prefetches twice as many messages as it has threads and sleeps when it has them:
with 8 threads that makes 2,000 jobs a second, with the prefetch of a thousand that its environment
variable allows 9,000, with any number of threads, on one core with the server.
"""

import os

from queue_peers.measuring import Clock, Progress, asked, leave, library, payload, report

_THREADS = 4
_PREFETCH = 1_000


def main() -> None:
    task = asked()
    # Read when the module is imported.
    os.environ["dramatiq_queue_prefetch"] = str(_PREFETCH)  # noqa: SIM112 - the peer's spelling
    dramatiq = library("dramatiq")
    broker = library("dramatiq.brokers.redis").RedisBroker(url=task.redis)
    dramatiq.set_broker(broker)
    progress = Progress(task.jobs)

    def no_op(**arguments: object) -> None:
        del arguments
        progress.ran()

    job = dramatiq.actor(no_op, actor_name="no_op")
    clock = Clock()
    for number in range(task.jobs):
        job.send(**payload(number))
    enqueue_s = clock.seconds()

    worker = dramatiq.Worker(broker, worker_threads=_THREADS)
    clock = Clock()
    worker.start()
    broker.join(job.queue_name, interval=5)
    work_s = clock.seconds()
    report(
        "dramatiq",
        task,
        enqueue_s=enqueue_s,
        work_s=work_s,
        note="a second may be lost; a finished job is deleted, no results",
    )
    leave()


if __name__ == "__main__":
    main()
