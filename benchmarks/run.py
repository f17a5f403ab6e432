"""Every speed on this machine, in one table with the limits and peers it was measured beside."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import bench_memory
import bench_mime
import bench_pool
import bench_pool_features
import bench_pool_latency
import bench_pool_memory
import bench_queue
import bench_queue_fleet
import bench_queue_history
import bench_queue_latency
import bench_send
import bench_smtp
import bench_workers
import msgspec
from loops import default_loop
from machine import Machine, describe
from sinks import program
from stats import Figure, table

if TYPE_CHECKING:
    from collections.abc import Callable


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run: the machine and all figures."""

    machine: Machine
    figures: list[Figure]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--quick", action="store_true", help="fewer runs of fewer messages")
    parser.add_argument("--full", action="store_true", help="also send to a million people")
    arguments = parser.parse_args()
    program("smtp-sink")
    program("smtp-source")
    report = measure(quick=arguments.quick, full=arguments.full)
    print("\n".join(report.machine.lines()), end="\n\n")
    print(table(report.figures))
    if arguments.json is not None:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    return 0


def measure(*, quick: bool, full: bool) -> Report:
    loop = default_loop()
    machine = describe(loop)
    parts: dict[str, Callable[[], list[Figure]]] = {
        "MIME": mime,
        "SMTP": lambda: bench_smtp.measure(
            runs=2 if quick else 5, messages=10_000 if quick else 20_000, loop=loop
        ),
        "send": lambda: bench_send.measure(
            runs=1 if quick else 3, recipients=10_000 if quick else 30_000
        ),
        "pool": lambda: bench_pool.measure(
            runs=1 if quick else 5, loops=[loop] if quick else bench_pool.installed_loops()
        ),
        "what the pool's features cost": lambda: bench_pool_features.measure(
            runs=3 if quick else 9, loop=loop
        ),
        "the pool's latency": lambda: bench_pool_latency.measure(runs=3 if quick else 7, loop=loop),
        "the pool's memory": lambda: bench_pool_memory.measure(
            jobs=100_000 if quick else 1_000_000, runs=1 if quick else 3
        ),
        "workers": lambda: bench_workers.measure(quick=quick),
        "queue": lambda: bench_queue.measure(
            runs=1 if quick else 5, jobs=20_000 if quick else 100_000, quick=quick
        ),
        "the queue's latency": lambda: bench_queue_latency.measure(
            runs=1 if quick else 3, seconds=2.0 if quick else 5.0
        ),
        "the queue's past": lambda: (
            bench_queue_history.measure(jobs=10_000, runs=2, finished=100_000, held_s=5.0)
            if quick
            else bench_queue_history.measure()
        ),
        "the queue's fleet": lambda: bench_queue_fleet.measure(
            runs=1 if quick else 3, jobs=20_000 if quick else 60_000, processes=4 if quick else 20
        ),
        "memory": lambda: (
            bench_memory.measure(full=full, sizes=(2_000, 20_000))
            if quick
            else bench_memory.measure(full=full)
        ),
    }
    figures: list[Figure] = []
    for name, part in parts.items():
        print(f"measuring {name} ...", file=sys.stderr)
        figures += part()
    return Report(machine=machine, figures=figures)


def mime() -> list[Figure]:
    result = bench_mime.main()
    ours, theirs = float(result["mailrace_us"]), float(result["email_message_us"])
    return [
        Figure(
            name="MIME, HTML and text",
            value=ours,
            unit="µs a message",
            ratio=theirs / ours,
            beside="EmailMessage",
            mark=10,
        ),
        Figure(name="EmailMessage, the same", value=theirs, unit="µs a message"),
    ]


if __name__ == "__main__":
    sys.exit(main())
