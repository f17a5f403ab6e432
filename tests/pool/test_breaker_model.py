"""A breaker against a model of it that keeps every time and every ticket."""

from dataclasses import dataclass, field

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from mailrace.pool.breaker import Breaker, BreakerSettings
from mailrace.pool.breaker_states import BreakerState

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
chances = st.sampled_from([0.0, 0.5, 1.0])
# Times are whole seconds and the window ten of them, so that its buckets are exact.
any_settings = st.builds(
    BreakerSettings,
    failures=st.integers(1, 4),
    share=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    calls_min=st.integers(1, 6),
    window_s=st.just(10.0),
    break_s=st.sampled_from([4.0, 8.0]),
    break_max_s=st.sampled_from([8.0, 20.0]),
    growth=st.sampled_from([1.0, 2.0]),
    jitter=st.sampled_from([0.0, 0.5]),
    probes=st.integers(1, 3),
    probe_successes=st.integers(1, 3),
    probe_lease_s=st.sampled_from([2.0, 6.0]),
)


@dataclass(eq=False)
class Call:
    ticket: int
    epoch: int
    began: float
    is_probe: bool


@dataclass
class Model:
    settings: BreakerSettings
    state: BreakerState = CLOSED
    epoch: int = 0
    opened: float | None = None
    reopens: float = 0.0
    failed_probes: int = 0
    passed_probes: int = 0
    results: list[tuple[float, bool]] = field(default_factory=list)
    probes: list[Call] = field(default_factory=list)

    def go_to(self, state: BreakerState) -> None:
        self.state, self.epoch, self.passed_probes, self.probes = state, self.epoch + 1, 0, []

    def open(self, now: float, chance: float) -> None:
        self.go_to(OPEN)
        length = self.settings.break_s
        for _ in range(self.failed_probes):
            length *= self.settings.growth
        length = min(length, self.settings.break_max_s)
        self.opened, self.reopens = now, now + length + length * self.settings.jitter * chance

    def close(self) -> None:
        self.go_to(CLOSED)
        self.opened, self.failed_probes, self.results = None, 0, []

    def live(self, now: float) -> list[Call]:
        return [call for call in self.probes if now - call.began < self.settings.probe_lease_s]

    def wait(self, now: float) -> float:
        if self.state is OPEN:
            return max(0.0, self.reopens - now)
        wait = 0.0
        while self.state is HALF_OPEN and len(self.live(now + wait)) >= self.settings.probes:
            wait += 1.0
        return wait

    def result(self, call: Call, now: float, chance: float, *, good: bool) -> None:
        if call.epoch != self.epoch:
            return
        if not call.is_probe:
            self.results.append((now, good))
            young = [good for time, good in self.results if now - time < self.settings.window_s]
            bad, many = young.count(False), len(young)
            wanted = max(self.settings.failures, self.settings.share * many)
            if not good and bad >= wanted and many >= self.settings.calls_min:
                self.open(now, chance)
        elif call in self.live(now):
            self.probes.remove(call)
            if not good:
                self.failed_probes += 1
                self.open(now, chance)
                return
            self.passed_probes += 1
            if self.passed_probes >= self.settings.probe_successes:
                self.close()


class BreakerMachine(RuleBasedStateMachine):
    calls: Bundle[Call] = Bundle("calls")

    @initialize(settings=any_settings)
    def begin(self, settings: BreakerSettings) -> None:
        self.now = 0.0
        self.breaker, self.model, self.running = Breaker(settings), Model(settings), 0

    @rule(seconds=st.sampled_from([1, 1, 2, 4, 8, 30]))
    def let_time_pass(self, seconds: int) -> None:
        self.now += seconds

    @rule(target=calls, many=st.integers(1, 4))
    def enter_if_allowed(self, many: int) -> MultipleResults[Call]:
        entered: list[Call] = []
        while len(entered) < many and self.breaker.wait_s(self.now) == 0:
            if self.model.state is OPEN:
                self.model.go_to(HALF_OPEN)
            is_probe = self.model.state is HALF_OPEN
            ticket = self.breaker.enter(self.now)
            call = Call(ticket, self.model.epoch, self.now, is_probe)
            if is_probe:
                self.model.probes.append(call)
            entered.append(call)
            self.agree()
        self.running += len(entered)
        return multiple(*entered)

    @rule(call=consumes(calls))
    def succeed(self, call: Call) -> None:
        before = self.answer()
        changed = self.breaker.succeeded(call.ticket, self.now)
        self.model.result(call, self.now, 0.0, good=True)
        self.end(before, changed=changed)

    @rule(call=consumes(calls), chance=chances)
    def fail(self, call: Call, chance: float) -> None:
        before = self.answer()
        changed = self.breaker.failed(call.ticket, self.now, chance)
        self.model.result(call, self.now, chance, good=False)
        self.end(before, changed=changed)

    @rule(call=consumes(calls))
    def release(self, call: Call) -> None:
        before = self.answer()
        changed = self.breaker.released(call.ticket)
        if call in self.model.probes:
            self.model.probes.remove(call)
        self.end(before, changed=changed)

    @rule(chance=chances)
    def trip(self, chance: float) -> None:
        self.breaker.trip(self.now, chance)
        self.model.open(self.now, chance)

    @rule()
    def reset(self) -> None:
        self.breaker.reset()
        self.model.close()

    @rule(settings=any_settings)
    def change(self, settings: BreakerSettings) -> None:
        self.breaker.change(settings, self.now)
        self.model.settings = settings
        longest = min(
            settings.break_s * settings.growth**self.model.failed_probes, settings.break_max_s
        )
        latest = self.now + longest * (1 + settings.jitter)
        self.model.reopens = min(self.model.reopens, latest)

    def answer(self) -> tuple[BreakerState, float]:
        return self.breaker.state_at(self.now), self.breaker.wait_s(self.now)

    def end(self, before: object, *, changed: bool) -> None:
        self.running -= 1
        assert changed or self.answer() == before

    @invariant()
    def agree(self) -> None:
        state, wait = self.answer()
        over = self.model.state is OPEN and self.now >= self.model.reopens
        assert state is (HALF_OPEN if over else self.model.state)
        assert wait == self.model.wait(self.now)
        assert self.breaker.opened_s == self.model.opened

    @invariant()
    def every_ticket_is_counted(self) -> None:
        assert self.breaker.running == self.running


TestBreakerAgainstItsModel = BreakerMachine.TestCase
TestBreakerAgainstItsModel.settings = hypothesis_settings(
    max_examples=150, stateful_step_count=50, deadline=None
)
