"""What each feature of the pool costs when it is switched on alone, and what the profiles reach.

All run no-op jobs through submit to the awaited result on ten workers, with no more in flight
than the queue holds. The pool with nothing on keeps no percentiles; counters are always kept.
"""

import argparse
import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from loops import LOOPS, default_loop, loop_factory
from pool_jobs import IN_FLIGHT, nothing
from stats import Figure, figure, interleaved, table

from mailrace.pool import (
    BreakerSettings,
    Job,
    OutcomeStream,
    Plugin,
    Pool,
    PoolSettings,
    RetryBudget,
    RetryPolicy,
)

_WORKERS = 10
_COUNT = 20_000
_MARK = 0.5  # no feature halves the speed
_KEYS = tuple({"key": f"key {number}"} for number in range(10))
_LONG_S = 30.0
_MUCH = "100000000/s"

# What the original claims for its profiles, in jobs a second; fifty times that is the mark.
_CLAIMS = (
    ("default", PoolSettings(), 1_000),
    ("high performance", PoolSettings.high_performance(), 5_000),
    ("resource constrained", PoolSettings.resource_constrained(), 500),
)
_TIMES_CLAIMED = 50


class Around(Plugin):
    """Does next to nothing before and after every attempt."""

    def __init__(self) -> None:
        self.begun = self.ended = 0

    def before(self, job: Job[Any]) -> None:
        del job
        self.begun += 1

    def after(self, job: Job[Any], value: object) -> None:
        del job, value
        self.ended += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One thing that is on.

    Attributes:
        settings: With which settings of the pool.
        options: With which options of the jobs, in turn.
        plugins: How many plugins are around every attempt.
        followed: Whether somebody reads the stream of outcomes.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Sequence[Mapping[str, Any]] = ()
    plugins: int = 0
    followed: bool = False


NOTHING_ON = "nothing on"
FEATURES: dict[str, Feature] = {
    NOTHING_ON: Feature(),
    "timeout": Feature(options=({"timeout": _LONG_S},)),
    "retry policy": Feature(options=({"retry": RetryPolicy()},)),
    "retry policy and budget": Feature(
        settings={"retry_budget": RetryBudget()}, options=({"retry": RetryPolicy()},)
    ),
    "rate limit that does not bind": Feature(settings={"rate": _MUCH}),
    "breaker": Feature(settings={"breaker": BreakerSettings()}),
    "priorities, three mixed": Feature(
        options=({"priority": "high"}, {"priority": "normal"}, {"priority": "low"})
    ),
    "fair turns, ten keys": Feature(settings={"fair_keys": True}, options=_KEYS),
    "rate limit a key, ten keys": Feature(settings={"key_rate": _MUCH}, options=_KEYS),
    "breaker a key, ten keys": Feature(settings={"key_breaker": BreakerSettings()}, options=_KEYS),
    "plugin, before and after": Feature(plugins=1),
    "percentiles": Feature(settings={"metrics": True}),
    "deadline": Feature(options=({"deadline": _LONG_S},)),
    "expiry": Feature(options=({"expires": _LONG_S},)),
    "bound by bytes": Feature(settings={"queue_bytes": 1_000_000}),
    "stream of outcomes, read": Feature(followed=True),
}


def speed(feature: Feature, *, count: int, loop: str) -> float:
    """Jobs a second with a feature on."""
    settings = PoolSettings(queue_size=IN_FLIGHT, metrics=False)
    wanted = settings.changed(workers=_WORKERS, **feature.settings)
    return _timed(wanted, feature, count=count, loop=loop)


def profile_speed(settings: PoolSettings, *, count: int, loop: str) -> float:
    """Jobs a second with a profile as it is."""
    return _timed(settings, Feature(), count=count, loop=loop)


def _timed(settings: PoolSettings, feature: Feature, *, count: int, loop: str) -> float:
    async def timed() -> float:
        plugins = [Around() for _ in range(feature.plugins)]
        async with Pool(settings, plugins=plugins) as pool:
            if feature.followed:
                stream = pool.outcomes(buffer=IN_FLIGHT)
                following = asyncio.create_task(_follow(stream))
            await _run(pool, feature, count // 4)
            begin = time.perf_counter()
            total = await _run(pool, feature, count)
            seconds = time.perf_counter() - begin
        if feature.followed and (seen := await following) + stream.missed != count + count // 4:
            raise RuntimeError(f"the stream of outcomes had {seen}, and missed {stream.missed}")
        if total != count * (count - 1) // 2:
            raise RuntimeError(f"results were lost: the sum is {total}")
        return count / seconds

    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        return runner.run(timed())


async def _run(pool: Pool, feature: Feature, count: int) -> int:
    submits = [pool.options(**options).submit for options in feature.options] or [pool.submit]
    most, ways = pool.settings.queue_size, len(submits)
    total = 0
    window: deque[Job[int]] = deque()
    for number in range(count):
        if len(window) == most:
            total += await window.popleft()
        window.append(await submits[number % ways](nothing, number))
    for job in window:
        total += await job
    return total


async def _follow(stream: OutcomeStream) -> int:
    count = 0
    async for _ in stream:
        count += 1
    return count


def measure(*, runs: int = 7, count: int = _COUNT, loop: str | None = None) -> list[Figure]:
    loop = loop or default_loop()
    return [
        *_of_features(runs=runs, count=count, loop=loop),
        *_of_profiles(runs=runs, count=count, loop=loop),
    ]


def _of_features(*, runs: int, count: int, loop: str) -> list[Figure]:
    values = interleaved(
        {
            name: partial(speed, feature, count=count, loop=loop)
            for name, feature in FEATURES.items()
        },
        runs,
    )
    base = values.pop(NOTHING_ON)
    return [
        figure(f"no-op with {NOTHING_ON}, {loop}", base, "jobs/s"),
        *(
            figure(f"  {name}", each, "jobs/s", beside=(NOTHING_ON, base), mark=_MARK)
            for name, each in values.items()
        ),
    ]


def _of_profiles(*, runs: int, count: int, loop: str) -> list[Figure]:
    values = interleaved(
        {
            name: partial(profile_speed, settings, count=count, loop=loop)
            for name, settings, _ in _CLAIMS
        },
        runs,
    )
    return [
        figure(
            f"profile {name}, no-op, {loop}",
            values[name],
            "jobs/s",
            beside=(f"claimed, {claim:,}/s", [claim]),
            mark=_TIMES_CLAIMED,
        )
        for name, _, claim in _CLAIMS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--count", type=int, default=_COUNT)
    parser.add_argument("--loop", choices=LOOPS, default=default_loop())
    print(table(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
