"""A process that enqueues at a steady rate; each job carries the time at which it was given."""

import argparse
import asyncio
import time

from mailrace.jobs import open_queue

KIND = "stamped"
_EVERY_S = 0.01


async def produce(store: str, rate: float, seconds: float) -> None:
    async with open_queue(store) as queue:
        began_s = time.perf_counter()
        given = 0
        while (passed_s := time.perf_counter() - began_s) < seconds:
            due = int(passed_s * rate) - given
            if due > 0:
                await queue.enqueue_many(KIND, [{"at": time.time()}] * due)
                given += due
            await asyncio.sleep(_EVERY_S)
    print(given)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    asyncio.run(produce(**vars(parser.parse_args())))
