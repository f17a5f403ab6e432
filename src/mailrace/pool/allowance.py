"""What a limit still allows: the state of its windows, for one user or by key."""

from collections import deque
from collections.abc import Hashable
from math import inf, nextafter

from mailrace.errors import MisuseError
from mailrace.pool.rate import Rate, RateLimit, Schedule


class _Window:
    """One window of a limit: its schedule, and the next free slot as its state.

    Attributes:
        before_s: The state before the last instant at which slots were taken.
        known_s: Since when the state tells what was used: a window that came with a change of
            the limit knows of the time before it only as far as its own length.
    """

    __slots__ = ("before_s", "known_s", "next_slot_s", "schedule")

    def __init__(
        self, schedule: Schedule, next_slot_s: float = -inf, known_s: float = -inf
    ) -> None:
        self.schedule = schedule
        self.next_slot_s = next_slot_s
        self.before_s = next_slot_s
        self.known_s = known_s


class Allowance:
    """The state of one limit: takes slots in all of its windows or in none.

    No window of the limit ever holds more than it says, whatever is taken and when; the proof
    stands at `Schedule`. Times are monotonic seconds and never go back. Costs beyond the burst of
    a window (a fiftieth of its count) are paid for twice, by waiting before and after them: a
    steady stream of them gets at least half of the rate.
    """

    __slots__ = ("__weakref__", "_factor", "_held", "_last_s", "_limit", "_taken", "_windows")

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        self._windows = tuple(map(_Window, limit.schedules))
        self._factor = 1.0
        # What can be given back: the slots taken at the last instant that took any.
        self._last_s = -inf
        self._held = 0
        self._taken = 0

    @property
    def limit(self) -> RateLimit:
        return self._limit

    @property
    def cost_max(self) -> int:
        """The highest cost that can be taken."""
        return self._limit.cost_max

    def take(self, now_s: float, cost: int = 1) -> float:
        """Takes slots for one departure now, or nothing at all.

        Returns:
            0.0 when they are taken; otherwise in how many seconds they can be, unless somebody
            else takes some before.

        Raises:
            MisuseError: The cost is below 1 or more than a window can ever hold.
        """
        if cost != 1:  # one slot fits always, and is by far the most frequent
            self._limit.check_cost(cost)
        for window in self._windows:
            ready_s = window.next_slot_s
            if cost != 1:
                ready_s = window.schedule.ready_s(ready_s, cost)
            if ready_s > now_s:
                return self.next_s(now_s, cost)
        again = now_s == self._last_s
        for window in self._windows:
            schedule = window.schedule
            if not again:
                window.before_s = window.next_slot_s
            _, window.next_slot_s = schedule.take(
                window.next_slot_s, from_s=now_s - schedule.grace_s, slots=cost
            )
        self._last_s = now_s
        self._held = self._held + cost if again else cost
        self._taken += cost
        return 0.0

    def next_s(self, now_s: float, cost: int = 1) -> float:
        """In how many seconds `take` can succeed; 0.0 for now."""
        if cost != 1:
            self._limit.check_cost(cost)
        at_s = now_s
        for window in self._windows:
            at_s = max(at_s, window.schedule.ready_s(window.next_slot_s, cost))
        return _seconds_until(at_s, now_s) if at_s > now_s else 0.0

    def refund(self, taken_s: float, cost: int = 1) -> None:
        """Gives back slots that were taken and not used.

        What the departures after it have left out for its sake cannot be made up without breaking
        the limit: slots come back only as long as nobody has taken any at a later time, and the
        limit and its pace are the same. Otherwise they are lost.

        Args:
            taken_s: The `now_s` at which they were taken.
        """
        if taken_s != self._last_s:
            return
        cost = min(cost, self._held)
        self._held -= cost
        self._taken -= cost
        for window in self._windows:
            if self._held:
                window.next_slot_s -= cost * window.schedule.interval_s
            else:  # also the time that it had been idle is given back
                window.next_slot_s = window.before_s

    def change(self, limit: RateLimit, now_s: float) -> None:
        """Holds another limit from now on; what was used counts against it too.

        Where the windows so far do not tell how much was used in a longer new one, the most that
        can have been is taken for it: departures then pause, for the length of that one at most.
        """
        if limit == self._limit:
            return
        self._windows = tuple(
            self._carried(schedule, rate, now_s)
            for schedule, rate in zip(limit.schedules, limit.used, strict=True)
        )
        self._limit = limit
        self._run_at(self._factor)

    def slow(self, factor: float) -> None:
        """Runs the limit at this share of its rate from now on; 1.0 for all of it.

        Raises:
            MisuseError: The factor is not above 0 and at most 1.
        """
        if not 0.0 < factor <= 1.0:
            raise MisuseError(f"factor {factor} is no share", hint="give more than 0 and at most 1")
        if factor != self._factor:
            self._run_at(factor)

    def _run_at(self, factor: float) -> None:
        self._factor, self._last_s = factor, -inf
        for window, schedule in zip(self._windows, self._limit.schedules, strict=True):
            window.schedule = schedule.slowed(factor)

    def idle(self, now_s: float) -> bool:
        """Whether a new one in its place would allow the same as long as the limit stays."""
        for window, rate in zip(self._windows, self._limit.used, strict=True):
            schedule = window.schedule
            if window.next_slot_s > now_s - schedule.grace_s:
                return False
            if schedule.ready_s(window.next_slot_s, rate.count) > now_s:
                return False
        return self._factor == 1.0

    def _carried(self, schedule: Schedule, rate: Rate, now_s: float) -> _Window:
        """The window of another limit, as if it had held for what was used until now."""
        # Each of the windows bounds what was used; the lowest bound is good enough.
        next_slot_s = min(
            _bound_s(
                window,
                full,
                schedule,
                taken=self._taken,
                since_s=now_s - rate.window_s,
                now_s=now_s,
            )
            for window, full in zip(self._windows, self._limit.schedules, strict=True)
        )
        # As after all of the window at once: by then nothing used until now is in it any more.
        _, most_s = schedule.take(-inf, from_s=now_s - schedule.grace_s, slots=rate.count)
        if next_slot_s <= most_s:
            return _Window(schedule, next_slot_s, now_s - rate.window_s)
        return _Window(schedule, most_s, now_s)


def _bound_s(
    window: _Window,
    full: Schedule,
    schedule: Schedule,
    *,
    taken: int,
    since_s: float,
    now_s: float,
) -> float:
    """The next free slot of `schedule`, had it been used as `window` was since `since_s`.

    Whatever was used from `t` on left the state of the window at `t - grace_s` plus one interval
    for each slot, at least: that bounds their number for every `t`, and so does `taken`. The new
    state has to be as far above the same `t`. Both are linear in `t`, so the ends tell the most.
    """
    end_s = window.next_slot_s + full.grace_s
    bound_s = -inf
    for first_s in (max(since_s, end_s - taken * full.interval_s), min(now_s, end_s)):
        if since_s <= first_s <= end_s:
            slots = (end_s - first_s) / full.interval_s
            bound_s = max(bound_s, first_s + slots * schedule.interval_s)
    if window.known_s > since_s:
        bound_s = max(bound_s, window.known_s + taken * schedule.interval_s)
    return bound_s - schedule.grace_s


def _seconds_until(at_s: float, now_s: float) -> float:
    wait_s = at_s - now_s
    while now_s + wait_s < at_s:  # rounded down: whoever waited would come too early
        wait_s = nextafter(wait_s, inf)
    return wait_s


_LOOK_EVERY = 8
# So few are not worth forgetting: they would only be made again, job by job.
_KEYS_MIN = 1000


class Allowances:
    """One allowance for each key, of the same limit; keys that hold nothing are forgotten.

    Every new key pays for a look at two old ones, in turn, so that a table keeps at most about
    twice the keys that are in use, or a thousand. Every eighth call that takes looks as well, so
    that it shrinks when no new keys come.
    """

    __slots__ = ("_by_key", "_calls", "_limit", "_round")

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        self._by_key: dict[Hashable, Allowance] = {}
        self._calls = 0
        self._round: deque[Hashable] = deque()  # every key once, the next to be looked at first

    def __len__(self) -> int:
        return len(self._by_key)

    @property
    def limit(self) -> RateLimit:
        return self._limit

    @property
    def cost_max(self) -> int:
        """The highest cost that can be taken."""
        return self._limit.cost_max

    def take(self, key: Hashable, now_s: float, cost: int = 1) -> float:
        """As `Allowance.take`, for the key."""
        self._calls += 1
        if self._calls % _LOOK_EVERY == 0:
            self._forget(now_s)
        allowance = self._by_key.get(key)
        if allowance is not None:
            return allowance.take(now_s, cost)
        self._forget(now_s)
        self._limit.check_cost(cost)
        allowance = self._by_key[key] = Allowance(self._limit)
        self._round.append(key)
        return allowance.take(now_s, cost)

    def refund(self, key: Hashable, taken_s: float, cost: int = 1) -> None:
        """As `Allowance.refund`, for the key."""
        allowance = self._by_key.get(key)
        if allowance is not None:
            allowance.refund(taken_s, cost)

    def next_s(self, key: Hashable, now_s: float, cost: int = 1) -> float:
        """As `Allowance.next_s`, for the key."""
        allowance = self._by_key.get(key)
        if allowance is not None:
            return allowance.next_s(now_s, cost)
        self._limit.check_cost(cost)
        return 0.0

    def change(self, limit: RateLimit, now_s: float) -> None:
        """As `Allowance.change`, for all keys. Under a longer window a forgotten key is new."""
        self._limit = limit
        for allowance in self._by_key.values():
            allowance.change(limit, now_s)

    def _forget(self, now_s: float) -> None:
        # Two, because each call can bring one new key.
        if len(self._round) < _KEYS_MIN:
            return
        for _ in range(min(2, len(self._round))):
            key = self._round.popleft()
            if self._by_key[key].idle(now_s):
                del self._by_key[key]
            else:
                self._round.append(key)
