# /// script
# requires-python = ">=3.11"
# dependencies = ["celery[redis]==5.7.0", "kombu==5.7.0", "redis==8.1.0", "hiredis==3.5.0"]
# [tool.uv]
# exclude-newer = "2026-11-22T00:00:00Z"
# ///
"""Celery on Valkey.

Enqueues through kombu's batch of publications. The worker is a process of its own, with the pool
that does nothing but run the jobs, one after another: faster here than threads (by a tenth) and
than a forked child (1.7 times). The prefetch of 128 is what Celery's guide to optimizing advises
for short jobs; results are ignored.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from queue_peers.measuring import Clock, Progress, Task, asked, library, payload, report

_BATCH = 1_000
_PREFETCH = 128


def main() -> None:
    task = asked()
    if task.worker:
        work(task)
        return
    app, job = application(task, Progress(task.jobs))
    clock = Clock()
    with app.producer_or_acquire() as producer, producer.batch(_BATCH):
        for number in range(task.jobs):
            job.apply_async(kwargs=payload(number), producer=producer)
    enqueue_s = clock.seconds()
    report(
        "celery",
        task,
        enqueue_s=enqueue_s,
        work_s=worked_off_s(task),
        note="a second may be lost, and a job if its worker dies as it runs; nothing is kept",
    )


def application(task: Task, progress: Progress) -> tuple[Any, Any]:
    """The application and its job, in the process that enqueues and in the worker alike."""
    app = library("celery").Celery("peer", broker=task.redis)
    app.conf.update(
        task_ignore_result=True,
        worker_prefetch_multiplier=_PREFETCH,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
    )

    def no_op(**arguments: object) -> None:
        del arguments
        progress.ran()

    return app, app.task(name="no_op")(no_op)


def work(task: Task) -> None:
    """Runs the worker; the file it leaves has the times of its start and of the last job."""
    times = {}

    def note_ready(**_: object) -> None:
        times["ready"] = time.perf_counter()

    def note_end() -> None:
        times["ended"] = time.perf_counter()
        file = Path(task.worker)
        file.with_suffix(".part").write_text(json.dumps(times), encoding="utf-8")
        file.with_suffix(".part").rename(file)

    app, _ = application(task, Progress(task.jobs, at_end=note_end))
    library("celery.signals").worker_ready.connect(note_ready, weak=False)
    app.worker_main(
        ["worker", "--pool=solo", "--loglevel=WARNING", "--without-gossip", "--without-mingle"]
    )


def worked_off_s(task: Task) -> float:
    """Seconds from the worker being ready to the last job, both taken by the worker itself."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "times"
        words = ["--jobs", str(task.jobs), "--redis", task.redis, "--worker", str(file)]
        with subprocess.Popen([sys.executable, __file__, *words], stdout=sys.stderr) as process:
            try:
                while not file.exists():
                    if process.poll() is not None:
                        sys.exit("the worker ended before the last job")
                    time.sleep(0.05)
                times: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))
            finally:
                process.kill()
        return times["ended"] - times["ready"]


if __name__ == "__main__":
    main()
