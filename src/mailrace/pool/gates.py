"""What stands between a waiting job and its start: rate limits and circuit breakers."""

from collections.abc import Callable, Hashable
from copy import deepcopy
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from mailrace.errors import MisuseError
from mailrace.pool.allowance import Allowance, Allowances
from mailrace.pool.breaker import Breaker, Breakers
from mailrace.pool.breaker_states import BreakerStanding, BreakerState
from mailrace.pool.job import Job
from mailrace.pool.options import ALL_KEYS
from mailrace.pool.pace import Pace
from mailrace.pool.rate import Rate, RateLimit
from mailrace.pool.settings import PoolSettings
from mailrace.pool.sharing import bind

if TYPE_CHECKING:
    from mailrace.pool.worker import Worker


class Scope(Enum):
    """Whom a gate holds back."""

    POOL = "pool"
    KEY = "key"
    WORKER = "worker"


class Hold(NamedTuple):
    """A job may not start yet: ask again in so many seconds."""

    scope: Scope
    wait_s: float


class Tickets(NamedTuple):
    """What the attempt that a worker makes was let through with.

    Attributes:
        at_s: When that was.
        breaker: The breaker that gave `for_pool`: another one may be there when the attempt ends.
        key_breaker: The same for `for_key`.
    """

    at_s: float = 0.0
    breaker: Breaker | None = None
    for_pool: int = 0
    key_breaker: Breaker | None = None
    for_key: int = 0


# Half the price of calling the class, for every job (benchmarks/bench_pool_features.py).
_new_tickets = tuple.__new__


class Gates:
    """All limits and breakers of a pool, passed together or not at all.

    Args:
        settings: The pool's; which gates there are follows from them.
        chance: Gives numbers in [0, 1), for the jitter of breaks.

    Raises:
        MisuseError: Pools of another loop use the limit.
    """

    def __init__(self, settings: PoolSettings, chance: Callable[[], float]) -> None:
        self.bind(settings)
        self._chance = chance
        self._settings = settings
        self._ignored = settings.breaker_ignores
        self._rate = _changed(None, settings.rate, 0.0)
        self._pace = Pace(settings.pace) if settings.pace else None
        key_limit, self._worker_limit = _limit(settings.key_rate), _limit(settings.worker_rate)
        self._key_rates = Allowances(key_limit) if key_limit else None
        self.breaker = Breaker(settings.breaker) if settings.breaker else None
        self.key_breakers = Breakers(settings.key_breaker) if settings.key_breaker else None

    def __bool__(self) -> bool:
        """Whether there is any gate."""
        return any(
            gate is not None
            for gate in (
                self._rate,
                self._key_rates,
                self._worker_limit,
                self.breaker,
                self.key_breakers,
            )
        )

    def bind(self, settings: PoolSettings) -> None:
        """Makes sure of a shared limit before `change` takes it.

        Raises:
            MisuseError: Pools of another loop use it.
        """
        if isinstance(settings.rate, Allowance):
            bind(settings.rate)

    def check(self, cost: int) -> None:
        """Refuses a job that no window would ever let through.

        Raises:
            MisuseError: Its cost is above what a limit allows at all.
        """
        if cost == 1:
            return
        if cost > (most := self._cost_max):
            raise MisuseError(
                f"cost is {cost}, but the rate limit lets {most:g} through at most",
                hint="split the job, or raise the limit",
            )

    def for_worker(self, present: Allowance | None = None, now_s: float = 0.0) -> Allowance | None:
        """The limit that one worker has to itself; its present one goes on with what it used."""
        if self._worker_limit is None:
            return None
        return _changed(present, self._worker_limit, now_s)

    def change(self, settings: PoolSettings, now_s: float) -> None:
        """Goes on with other limits and breakers; what they know so far counts for the new ones."""
        self._ignored = settings.breaker_ignores
        self._change_rate(settings, now_s)
        self._worker_limit = _limit(settings.worker_rate)
        key_limit = _limit(settings.key_rate)
        if key_limit is None:
            self._key_rates = None
        elif self._key_rates is None:
            self._key_rates = Allowances(key_limit)
        else:
            self._key_rates.change(key_limit, now_s)
        if settings.breaker is None or self.breaker is None:
            self.breaker = Breaker(settings.breaker) if settings.breaker else None
        else:
            self.breaker.change(settings.breaker, now_s)
        if settings.key_breaker is None or self.key_breakers is None:
            self.key_breakers = Breakers(settings.key_breaker) if settings.key_breaker else None
        else:
            self.key_breakers.change(settings.key_breaker, now_s)

    def _change_rate(self, settings: PoolSettings, now_s: float) -> None:
        before, self._settings = self._settings, settings
        rate, paced = self._rate, self._pace is not None
        if isinstance(before.rate, Allowance) and settings.rate is not before.rate:
            # The others go on with theirs; what all of them have used counts here too.
            rate = deepcopy(before.rate)
            if paced:
                before.rate.slow(1.0)
        if settings.pace != before.pace:
            self._pace = Pace(settings.pace) if settings.pace else None
        self._rate = _changed(rate, settings.rate, now_s)
        own = not isinstance(settings.rate, Allowance)
        if self._rate is not None and (own or paced or self._pace is not None):
            self._rate.slow(self.pace)

    def reset(self, key: Hashable) -> None:
        """Closes the breaker of a key; for `ALL_KEYS` every one there is."""
        every = key is ALL_KEYS
        if every and self.breaker is not None:
            self.breaker.reset()
        if self.key_breakers is not None:
            keys = list(self.key_breakers.open_keys(float("-inf"))) if every else [key]
            for known in keys:
                self.key_breakers.reset(known)

    def breakers_open(self, now_s: float) -> int:
        """Breakers that let nothing through, or only probes."""
        closed = self.breaker is None or self.breaker.state_at(now_s) is BreakerState.CLOSED
        of_keys = 0 if self.key_breakers is None else len(self.key_breakers.open_keys(now_s))
        return of_keys + (not closed)

    def breakers(self, now_s: float) -> tuple[BreakerStanding, ...]:
        """The pool's own breaker, and those of keys that are not closed."""
        found: list[BreakerStanding] = []
        own, keys = self.breaker, self.key_breakers
        if own is not None:
            found.append(_standing(None, own.state_at(now_s), own.wait_s(now_s), of_pool=True))
        if keys is not None:
            found += [
                _standing(key, state, keys.wait_s(key, now_s), of_pool=False)
                for key, state in keys.open_keys(now_s).items()
            ]
        return tuple(found)

    def admit(self, job: Job[Any], worker: "Worker", now_s: float) -> Hold | None:
        """Lets a job start: takes what it costs from every limit, and a ticket of every breaker.

        Returns:
            What holds it back; then nothing was taken.
        """
        key, cost = job.terms.key, job.terms.cost
        if cost != 1:
            cost = self._at_most(cost)
        allowance = worker.allowance
        hold = self._hold(key, cost, allowance, now_s)
        if hold is not None:
            return hold
        # The last one to ask takes in the same breath, or nothing is taken at all.
        if self._rate is not None and (wait_s := self._rate.take(now_s, cost)) > 0:
            return Hold(Scope.POOL, wait_s)
        if self._key_rates is not None:
            self._key_rates.take(key, now_s, cost)
        if allowance is not None:
            allowance.take(now_s, cost)
        breaker = self.breaker
        key_breaker = None if self.key_breakers is None else self.key_breakers.of(key, now_s)
        worker.tickets = _new_tickets(
            Tickets,
            (
                now_s,
                breaker,
                0 if breaker is None else breaker.enter(now_s),
                key_breaker,
                0 if key_breaker is None else key_breaker.enter(now_s),
            ),
        )
        return None

    def holds(self, job: Job[Any], now_s: float) -> bool:
        """Whether a job could not start now, whichever worker took it."""
        cost = self._at_most(job.terms.cost)
        if self._rate is not None and self._rate.next_s(now_s, cost) > 0:
            return True
        return self._hold(job.terms.key, cost, None, now_s) is not None

    def refund(self, job: Job[Any], worker: "Worker") -> None:
        """Gives back what a running job took from the limits and did not use."""
        key, cost, taken_s = job.terms.key, self._at_most(job.terms.cost), worker.tickets.at_s
        if self._rate is not None:
            self._rate.refund(taken_s, cost)
        if self._key_rates is not None:
            self._key_rates.refund(key, taken_s, cost)
        if worker.allowance is not None:
            worker.allowance.refund(taken_s, cost)

    def slowed(self, now_s: float) -> None:
        """The far side asked for less."""
        if self._pace is not None and self._rate is not None and self._pace.slowed(now_s):
            self._rate.slow(self._pace.factor)

    def ended(self, job: Job[Any], error: BaseException | None, now_s: float) -> bool:
        """Tells the breakers and the pace how an attempt ended; errors of no meaning excepted.

        Returns:
            Whether a job that was held back may pass now.
        """
        if error is None:
            unbroken = self.breaker is None and self.key_breakers is None
            changed = not unbroken and self._succeeded(job, now_s)
            if self._pace is not None and self._rate is not None and self._pace.succeeded(now_s):
                self._rate.slow(self._pace.factor)
                return True
            return changed
        if isinstance(error, self._ignored):
            return self.released(job)
        return self._failed(job, now_s)

    def released(self, job: Job[Any]) -> bool:
        """An attempt ended that says nothing about the far side: it was cancelled."""
        _, breaker, for_pool, key_breaker, for_key = _tickets(job)
        changed = breaker is not None and breaker.released(for_pool)
        if key_breaker is not None:
            changed |= key_breaker.released(for_key)
        return changed

    @property
    def pace(self) -> float:
        """The share of its limit at which the pool runs."""
        return 1.0 if self._pace is None else self._pace.factor

    @property
    def _cost_max(self) -> float:
        """What one job can cost at most to get through."""
        limits = (self._rate, self._key_rates, self._worker_limit)
        return min((limit.cost_max for limit in limits if limit is not None), default=inf)

    def _at_most(self, cost: int) -> int:
        """What a job is charged: one from before the limits came down takes a window to itself."""
        most = self._cost_max
        return cost if cost <= most else int(most)

    def _hold(
        self, key: Hashable, cost: int, worker: Allowance | None, now_s: float
    ) -> Hold | None:
        """What holds a job back, but for the pool's own limit."""
        if self.breaker is not None and (wait_s := self.breaker.wait_s(now_s)) > 0:
            return Hold(Scope.POOL, wait_s)
        if self.key_breakers is not None and (wait_s := self.key_breakers.wait_s(key, now_s)) > 0:
            return Hold(Scope.KEY, wait_s)
        if self._key_rates is not None and (wait_s := self._key_rates.next_s(key, now_s, cost)) > 0:
            return Hold(Scope.KEY, wait_s)
        if worker is not None and (wait_s := worker.next_s(now_s, cost)) > 0:
            return Hold(Scope.WORKER, wait_s)
        return None

    def _succeeded(self, job: Job[Any], now_s: float) -> bool:
        _, breaker, for_pool, key_breaker, for_key = _tickets(job)
        changed = breaker is not None and breaker.succeeded(for_pool, now_s)
        if key_breaker is not None:
            changed |= key_breaker.succeeded(for_key, now_s)
        return changed

    def _failed(self, job: Job[Any], now_s: float) -> bool:
        _, breaker, for_pool, key_breaker, for_key = _tickets(job)
        changed = breaker is not None and breaker.failed(for_pool, now_s, self._chance())
        if key_breaker is not None:
            changed |= key_breaker.failed(for_key, now_s, self._chance())
        return changed


def _changed(
    present: Allowance | None, wanted: Allowance | RateLimit | Rate | str | None, now_s: float
) -> Allowance | None:
    if wanted is None or isinstance(wanted, Allowance):
        return wanted
    limit = RateLimit.of(wanted)
    if present is None:
        return Allowance(limit)
    present.change(limit, now_s)
    return present


def _standing(
    key: Hashable, state: BreakerState, wait_s: float, *, of_pool: bool
) -> BreakerStanding:
    return BreakerStanding(key=key, of_pool=of_pool, state=state, retry_in_s=wait_s)


def _limit(value: RateLimit | Rate | str | None) -> RateLimit | None:
    return None if value is None else RateLimit.of(value)


def _tickets(job: Job[Any]) -> Tickets:
    worker = job.worker
    assert worker is not None
    return worker.tickets
