"""One worker process of a fleet, for as long as its input is open."""

import argparse
import asyncio
import sys

from queue_work import Place, worker_on


async def work(store: str, journals: str) -> None:
    place = Place(store=store, journals=journals)
    async with worker_on(place) as worker:
        running = asyncio.create_task(worker.run())
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        worker.drain()
        await running
    print(worker.settled)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("journals")
    asyncio.run(work(**vars(parser.parse_args())))
