"""The circuit breaker: stops asking a far side that is down, and finds out when it is back.

What others learnt the hard way is built in. Results of calls that began before the last step
change nothing (Polly). While half-open, a fixed number of probes is leased, and a lease whose
holder never reports runs out (resilience4j). The break is counted from the failure that caused
it, grows with every failed probe, and is jittered so that processes do not probe in step.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from mailrace.errors import MisuseError
from mailrace.pool.breaker_states import BreakerState, BreakerStep, after
from mailrace.pool.ranges import LONGEST_S, SHORTEST_S, check_number, check_whole
from mailrace.pool.retry import grown_s
from mailrace.pool.window import SlidingCount

# Looking a member up in its class costs as much as the rest of a hot call.
_CLOSED: Final = BreakerState.CLOSED
_OPEN: Final = BreakerState.OPEN
_HALF_OPEN: Final = BreakerState.HALF_OPEN

# Two looks for each new key: the table shrinks while new keys come.
_LOOKS = 2
# So few are not worth forgetting: they would only be made again, job by job.
_KEYS_MIN = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """When a breaker opens, for how long, and what closes it again.

    Attributes:
        failures: So many failures in the window open it,
        share: if they are at least this share of the results in the window, 0 to 1,
        calls_min: and if there were at least so many results.
        window_s: Seconds that a failure counts.
        break_s: Seconds that the first break lasts, before jitter.
        break_max_s: Seconds that no break exceeds, before jitter.
        growth: How many times longer a break is that follows a failed probe.
        jitter: The share of the break that is at most added to it at random.
        probes: Calls let through at the same time while half-open.
        probe_successes: Successful probes that close it.
        probe_lease_s: Seconds after which a probe that has not reported makes room for another;
            what it reports later counts for nothing.
    """

    failures: int = 5
    share: float = 0.0
    calls_min: int = 1
    window_s: float = 60.0
    break_s: float = 30.0
    break_max_s: float = 300.0
    growth: float = 2.0
    jitter: float = 0.1
    probes: int = 1
    probe_successes: int = 1
    probe_lease_s: float = 60.0

    def __post_init__(self) -> None:
        for name in ("failures", "calls_min", "probes", "probe_successes"):
            check_whole(name, getattr(self, name), least=1)
        for name in ("window_s", "break_s", "break_max_s", "probe_lease_s"):
            check_number(name, getattr(self, name), least=SHORTEST_S, most=LONGEST_S)
        check_number("share", self.share, least=0.0, most=1.0)
        check_number("growth", self.growth, least=1.0, most=1e9)
        check_number("jitter", self.jitter, least=0.0, most=1.0)
        if self.break_max_s < self.break_s:
            raise MisuseError(
                f"break_max_s is {self.break_max_s!r}, shorter than break_s {self.break_s!r}",
                hint="give at least break_s",
            )

    def break_after_s(self, failed_probes: int, chance: float) -> float:
        """How long the break lasts after so many failed probes in a row."""
        plain_s = grown_s(self.break_s, self.growth, failed_probes, self.break_max_s)
        return plain_s * (1.0 + self.jitter * chance)

    def opens(self, failures: int, successes: int) -> bool:
        """Whether such a window opens the breaker."""
        calls = failures + successes
        return (
            failures >= self.failures and calls >= self.calls_min and failures / calls >= self.share
        )

    @property
    def weighs_successes(self) -> bool:
        """Whether successes have a say in what `opens` says."""
        return self.share > 0 or self.calls_min > self.failures


class Breaker:
    """One far side's breaker.

    Ask `wait_s`; if it says 0.0, `enter` at once, and hand the ticket back exactly once:

    - `succeeded`: the far side works, which also a refusal of this one job shows;
    - `failed`: it does not; a timeout is a failure;
    - `released`: nothing is known, for example because the call was cancelled.

    These and `trip`, `reset` and `change` return whether `wait_s` may now give another answer:
    whoever was told to wait should then ask again.

    Attributes:
        settings: As last given to `change`.
        generation: A number that is new, and larger, after every step. Results of calls that
            began in an earlier one change nothing.
        opened_s: When the present break began, or the one that is being probed; `None` if closed.
        running: Tickets that were not handed back yet.
    """

    __slots__ = (
        "_failed_probes",
        "_failures",
        "_number",
        "_passed_probes",
        "_probes",
        "_reopens_s",
        "_state",
        "_successes",
        "generation",
        "opened_s",
        "running",
        "settings",
    )

    def __init__(self, settings: BreakerSettings) -> None:
        self.settings = settings
        self.generation = 0
        self.opened_s: float | None = None
        self.running = 0
        self._state = _CLOSED
        self._number = 0
        self._reopens_s = float("-inf")
        # By ticket, when its lease began; the oldest first.
        self._probes: dict[int, float] = {}
        self._passed_probes = 0
        self._failed_probes = 0
        self._forget()

    def state_at(self, now_s: float) -> BreakerState:
        """The state; a break that is over counts as half-open."""
        return _HALF_OPEN if self._state is _OPEN and now_s >= self._reopens_s else self._state

    def is_blank_at(self, now_s: float) -> bool:
        """Whether a new breaker would behave in the same way."""
        if self._state is not _CLOSED or self.running > 0 or self._failures.total_at(now_s):
            return False
        return not (self.settings.weighs_successes and self._successes.total_at(now_s))

    def wait_s(self, now_s: float) -> float:
        """Seconds until it is worth asking again; 0.0 to `enter` now. Changes nothing."""
        if self._state is _CLOSED:
            return 0.0
        if self._state is _OPEN:
            return max(0.0, self._reopens_s - now_s)
        return self._lease_wait_s(now_s)

    def enter(self, now_s: float) -> int:
        """Begins a call that `wait_s` has just allowed.

        Returns:
            The ticket to hand back.

        Raises:
            MisuseError: It is not allowed.
        """
        if self._state is _CLOSED:
            self.running += 1
            # One number for all calls of a generation: a ticket of its own is only for probes.
            return self.generation
        return self._enter_probe(now_s)

    def succeeded(self, ticket: int, now_s: float) -> bool:
        self.running -= 1
        # Only a closed breaker gives its generation away as a ticket.
        if ticket == self.generation:
            self._successes.add(now_s)
            return False
        if not self._end_probe(ticket, now_s):
            return False
        self._passed_probes += 1
        if self._passed_probes >= self.settings.probe_successes:
            self._close(BreakerStep.RECOVER)
        return True

    def failed(self, ticket: int, now_s: float, chance: float) -> bool:
        """The call failed or timed out; `chance`, from 0 to 1, is for the jitter of the break."""
        self.running -= 1
        if ticket == self.generation:
            self._failures.add(now_s)
            failures, successes = self._failures.total_at(now_s), self._successes.total_at(now_s)
            if not self.settings.opens(failures, successes):
                return False
            self._open(BreakerStep.FAIL, now_s, chance)
            return True
        if not self._end_probe(ticket, now_s):
            return False
        self._failed_probes += 1
        self._open(BreakerStep.FAIL_PROBE, now_s, chance)
        return True

    def released(self, ticket: int) -> bool:
        """The call was cancelled: no verdict, and the lease of a probe is free again."""
        self.running -= 1
        return self._probes.pop(ticket, None) is not None

    def trip(self, now_s: float, chance: float) -> bool:
        """Opens it by hand; a break that is under way begins anew."""
        self._open(BreakerStep.TRIP, now_s, chance)
        return True

    def reset(self) -> bool:
        """Closes it by hand, and forgets every failure."""
        self._close(BreakerStep.RESET)
        return True

    def change(self, settings: BreakerSettings, now_s: float) -> bool:
        """Takes other settings.

        The generation stays, and so does what was counted unless the window has another length.
        A break that is under way ends no later than the longest new one that began now.
        """
        if settings.window_s != self.settings.window_s:
            self._failures = SlidingCount(settings.window_s)
            self._successes = SlidingCount(settings.window_s)
        self.settings = settings
        longest_s = settings.break_after_s(self._failed_probes, 1.0)
        self._reopens_s = min(self._reopens_s, now_s + longest_s)
        return True

    def _lease_wait_s(self, now_s: float) -> float:
        lease_s = self.settings.probe_lease_s
        ends_s = [began_s + lease_s for began_s in self._probes.values()]
        live_s = [end_s for end_s in ends_s if end_s > now_s]
        surplus = len(live_s) - self.settings.probes
        return live_s[surplus] - now_s if surplus >= 0 else 0.0

    def _enter_probe(self, now_s: float) -> int:
        wait_s = self.wait_s(now_s)
        if wait_s > 0:
            raise MisuseError(
                f"the breaker is {self._state} for {wait_s:g} s more", hint="ask wait_s first"
            )
        if self._state is _OPEN:
            self._take(BreakerStep.WAIT_OUT)
        lease_s = self.settings.probe_lease_s
        for ticket in [at for at, began_s in self._probes.items() if began_s + lease_s <= now_s]:
            del self._probes[ticket]
        self.running += 1
        self._number += 1
        self._probes[self._number] = now_s
        return self._number

    def _end_probe(self, ticket: int, now_s: float) -> bool:
        began_s = self._probes.pop(ticket, None)
        return began_s is not None and began_s + self.settings.probe_lease_s > now_s

    def _open(self, step: BreakerStep, now_s: float, chance: float) -> None:
        self._take(step)
        self.opened_s = now_s
        self._reopens_s = now_s + self.settings.break_after_s(self._failed_probes, chance)

    def _close(self, step: BreakerStep) -> None:
        self._take(step)
        self.opened_s = None
        self._failed_probes = 0
        self._forget()

    def _take(self, step: BreakerStep) -> None:
        self._state = after(self._state, step)
        # Generations and leases share their numbers, so that no ticket is ever given twice.
        self._number += 1
        self.generation = self._number
        self._probes.clear()
        self._passed_probes = 0

    def _forget(self) -> None:
        self._failures = SlidingCount(self.settings.window_s)
        self._successes = SlidingCount(self.settings.window_s)


class Breakers:
    """The breakers of all keys, for example of hosts or tenants; the calls are those of one.

    A key is forgotten when its breaker is closed, has no failure in its window and every ticket
    is back: a new one would behave in the same way. Each new key pays for a look at two old ones,
    so that the table holds at most about twice as many keys as there is something to remember
    about, or a thousand.
    """

    __slots__ = ("_by_key", "settings")

    def __init__(self, settings: BreakerSettings) -> None:
        self.settings = settings
        # In the order of the last look; popping the first of a plain dict is not O(1).
        self._by_key: OrderedDict[Hashable, Breaker] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_key)

    def state_at(self, key: Hashable, now_s: float) -> BreakerState:
        breaker = self._by_key.get(key)
        return BreakerState.CLOSED if breaker is None else breaker.state_at(now_s)

    def open_keys(self, now_s: float) -> dict[Hashable, BreakerState]:
        """Every key whose breaker is not closed, with its state; looks at all keys."""
        states = {key: breaker.state_at(now_s) for key, breaker in self._by_key.items()}
        return {key: state for key, state in states.items() if state is not BreakerState.CLOSED}

    def of(self, key: Hashable, now_s: float) -> Breaker:
        """The breaker of a key, for whoever gives it several calls; to be asked for each time."""
        breaker = self._by_key.get(key)
        return self._add(key, now_s) if breaker is None else breaker

    def wait_s(self, key: Hashable, now_s: float) -> float:
        breaker = self._by_key.get(key)
        return 0.0 if breaker is None else breaker.wait_s(now_s)

    def enter(self, key: Hashable, now_s: float) -> int:
        breaker = self._by_key.get(key)
        return (breaker or self._add(key, now_s)).enter(now_s)

    def succeeded(self, key: Hashable, ticket: int, now_s: float) -> bool:
        return self._by_key[key].succeeded(ticket, now_s)

    def failed(self, key: Hashable, ticket: int, now_s: float, chance: float) -> bool:
        return self._by_key[key].failed(ticket, now_s, chance)

    def released(self, key: Hashable, ticket: int) -> bool:
        return self._by_key[key].released(ticket)

    def trip(self, key: Hashable, now_s: float, chance: float) -> bool:
        return (self._by_key.get(key) or self._add(key, now_s)).trip(now_s, chance)

    def reset(self, key: Hashable) -> bool:
        breaker = self._by_key.get(key)
        return breaker is not None and breaker.reset()

    def change(self, settings: BreakerSettings, now_s: float) -> bool:
        self.settings = settings
        for breaker in self._by_key.values():
            breaker.change(settings, now_s)
        return True

    def _add(self, key: Hashable, now_s: float) -> Breaker:
        looks = min(_LOOKS, len(self._by_key)) if len(self._by_key) >= _KEYS_MIN else 0
        for _ in range(looks):
            old, breaker = self._by_key.popitem(last=False)
            if not breaker.is_blank_at(now_s):
                self._by_key[old] = breaker
        breaker = self._by_key[key] = Breaker(self.settings)
        return breaker
