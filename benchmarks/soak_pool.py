"""Random faults for minutes: at every rest, what the pool says ran is what the handlers counted.

Jobs return, wait, raise, ask for a retry, hang, ignore their cancel, submit jobs of their own and
kill their process, while somebody pauses, resizes, changes settings, cancels and closes the pool.
"""

import argparse
import asyncio
import itertools
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

from loops import LOOPS, default_loop, loop_factory
from soak_handlers import Record, Witness
from soak_round import REST_S, Round, changes

from mailrace.pool import Job, JobState, Kind, OutcomeStream, Pool, PoolSettings

_DRIFT_MAX = 20


async def follow(stream: OutcomeStream, seen: Counter[JobState]) -> None:
    """Counts outcomes as a reader does that the pool waits for."""
    async for outcome in stream:
        seen[outcome.state] += 1


async def life(witness: Witness, numbers: Iterator[int], rounds: int) -> int:
    """One pool from its start to its end; returns the jobs that it accepted."""
    chance = Random(next(numbers))
    settings = PoolSettings(workers_max=8, queue_size=100, cancel_grace=0.2, idle_timeout=0.5)
    witness.opened()
    seen: Counter[JobState] = Counter()
    pool = await Pool(settings, **changes(chance)).start()
    follower = asyncio.create_task(follow(pool.outcomes(buffer=50, slow="wait"), seen))
    abruptly = chance.random() < 0.5
    report = None
    for number in range(rounds):
        one = Round(pool, witness, numbers)
        await one.run(closes=abruptly and number == rounds - 1)
        report = one.report
        await settled(witness)
        compare(pool, witness, seen)
        if report is None and chance.random() < 0.3:
            await reprocessed(pool, witness)
    report = report or await pool.close(1.0)
    await follower
    compare(pool, witness, seen)
    handed_back = witness.states[JobState.HANDED_BACK]
    if len(report.unfinished) != handed_back:
        witness.found(f"{handed_back} were handed back, {len(report.unfinished)} reported")
    return witness.accepted


async def reprocessed(pool: Pool, witness: Witness) -> None:
    """Runs some dead letters once more; each is a job of its own."""
    letters = [letter for letter in pool.dead_letters if letter.kind is not Kind.PROCESS][:5]
    for letter in letters:
        record = Record(letter.args[1] if len(letter.args) > 1 else letter.args[0], letter.kind)
        witness.records[record.number] = record
        (job,) = await pool.reprocess(letter.id)
        record.job = job
        witness.accepted += 1
        job.add_done_callback(partial(_ended, witness, record))
    await pool.drain()
    await settled(witness)


def _ended(witness: Witness, record: Record, job: Job[int]) -> None:
    witness.ended(job, record)


async def settled(witness: Witness) -> None:
    """Waits for handlers that nobody could stop."""
    until = time.monotonic() + REST_S
    while witness.running:
        if time.monotonic() > until:
            witness.found(f"{witness.running} handlers run on for ever")
            return
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)  # what a thread or the stream brought is being looked at


def compare(pool: Pool, witness: Witness, seen: Counter[JobState]) -> None:
    """The pool's ledger beside what its handlers, its jobs and its stream of outcomes counted."""
    witness.compare()
    ledger, numbers = pool.ledger(), pool.numbers()
    if ledger.unfinished or not ledger.balanced:
        witness.found(f"the ledger does not add up: {ledger}")
    if ledger.accepted != witness.accepted:
        witness.found(f"{witness.accepted} were accepted; but {ledger}")
    if witness.late_returns > numbers.late + witness.killed:
        witness.found(f"{witness.late_returns} came late, the pool counted {numbers.late}")
    final = [state for state in JobState if state is not JobState.AVAILABLE]
    for state in final:
        said = getattr(ledger, state.name.lower(), 0)
        if not said == witness.states[state] == seen[state]:
            told = f"jobs said {witness.states[state]}, the stream {seen[state]}"
            witness.found(f"{state}: the ledger has {said}, {told}")


async def soak(seconds: float, seed: int, folder: Path) -> bool:
    """Pool after pool; false if anything did not fit."""
    witness, numbers = Witness(folder), itertools.count(seed * 1_000_000_000)
    begin, accepted, pools = time.monotonic(), 0, 0
    while (spent := time.monotonic() - begin) < seconds and len(witness.drift) < _DRIFT_MAX:
        accepted += await life(witness, numbers, rounds=1 + pools % 3)
        pools += 1
        print(
            f"{spent:6.0f} s, {pools} pools, {accepted:,} jobs, {rss_mb():.0f} MB, "
            f"{len(witness.drift)} drifts",
            flush=True,
        )
        for problem in witness.drift:
            print(f"  {problem}", flush=True)
    verdict = "no drift" if not witness.drift else "DRIFT"
    print(f"{verdict}: {accepted:,} jobs in {pools} pools, seed {seed}")
    return not witness.drift


def rss_mb() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--loop", choices=LOOPS, default=default_loop())
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=loop_factory(arguments.loop)) as runner,
    ):
        good = runner.run(soak(arguments.minutes * 60, arguments.seed, Path(folder)))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
