"""What the store and the world say of the jobs, and what has to be so whatever happened."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mailrace.jobs import JobDetail, JobRow, JobState, Queue, open_queue
from tests.system.kills.processes import PATIENCE_S, Process

_T = TypeVar("_T")
KINDS = ("slow", "once", "quick", "chunk")
FINAL_STEPS = {"complete", "fail", "lose", "cancel", "expire"}
_MOST = 1000


class Effect(NamedTuple):
    """A line that a handler left."""

    job: int
    attempt: int
    pid: int
    what: str
    at_ns: int


class Books:
    """One store and the file of effects that belongs to it.

    Attributes:
        plan: What every process is given that works here.
    """

    def __init__(self, store: str, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self.path = folder / "effects"
        self.journals = folder / "journals"
        self.kinds: dict[int, str] = {}

    @property
    def plan(self) -> dict[str, Any]:
        return {
            "store": self.store, "effects": str(self.path), "journals": str(self.journals),
        }  # fmt: skip

    def process(self, stack: ExitStack, **plan: Any) -> Process:
        """One more process that works here, until the stack is closed."""
        return stack.enter_context(Process(**self.plan | plan))

    def ask(self, question: Callable[[Queue], Awaitable[_T]]) -> _T:
        async def asked() -> _T:
            async with open_queue(self.store) as opened:
                return await question(opened)

        return asyncio.run(asked())

    def enqueue(self, kinds: Iterable[str], **choices: Any) -> list[int]:
        """One job of each; returns their ids."""
        wanted = list(kinds)

        async def add(opened: Queue) -> list[int]:
            jobs = [opened.job(kind, {"n": n}, **choices) for n, kind in enumerate(wanted)]
            return [answer.id for answer in await opened.enqueue_jobs(jobs)]

        ids = self.ask(add)
        self.kinds |= dict(zip(ids, wanted, strict=True))
        return ids

    def of(self, *kinds: str) -> set[int]:
        return {job for job, kind in self.kinds.items() if kind in kinds}

    def limit(self, name: str | None, rates: str = "", tenants: Sequence[str] = ()) -> None:
        """Has all jobs wait for a limit, of each tenant if its name says so; or for none."""

        async def change(opened: Queue) -> None:
            for tenant in tenants or [""]:
                if name is not None:
                    await opened.set_limit(name.replace("{tenant}", tenant), rates)
            await opened.configure("default", limits=() if name is None else (name,))

        self.ask(change)

    # The world

    def effects(self) -> list[Effect]:
        if not self.path.exists():
            return []
        lines = (line.split() for line in self.path.read_text(encoding="ascii").splitlines())
        return [Effect(int(j), int(a), int(p), what, int(at)) for j, a, p, what, at in lines]

    def begun(self, pid: int | None = None) -> Counter[int]:
        """By job: how often a handler began."""
        return Counter(
            effect.job
            for effect in self.effects()
            if effect.what == "begin" and pid in {None, effect.pid}
        )

    # The store

    def rows(self) -> dict[int, JobRow]:
        async def look(opened: Queue) -> dict[int, JobRow]:
            rows: list[JobRow] = []
            while page := await opened.find(limit=_MOST, before_id=rows[-1].id if rows else None):
                rows += page
            return {row.id: row for row in rows}

        return self.ask(look)

    def states(self) -> dict[JobState, set[int]]:
        found: defaultdict[JobState, set[int]] = defaultdict(set)
        for job, row in self.rows().items():
            found[row.state].add(job)
        return dict(found)

    def details(self) -> dict[int, JobDetail]:
        async def look(opened: Queue) -> dict[int, JobDetail]:
            found = [await opened.detail(job) for job in self.kinds]
            return {detail.row.id: detail for detail in found if detail is not None}

        return self.ask(look)

    def counts(self) -> dict[JobState, int]:
        """The ledger, over all queues."""

        async def look(opened: Queue) -> dict[JobState, int]:
            return await _counts(opened)

        return self.ask(look)

    def until_final(self) -> None:
        """Returns when nothing is left to be done."""
        self.until(lambda counts: not any(counts.get(state) for state in _OPEN))

    def until(self, true: Callable[[dict[JobState, int]], bool]) -> None:
        async def look(opened: Queue) -> None:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    if true(await _counts(opened)):
                        return
                    await asyncio.sleep(0.02)

        try:
            self.ask(look)
        except TimeoutError:
            raise AssertionError((self.counts(), self.begun())) from None

    def check(self) -> None:
        """What holds after any death, once everything has ended and everybody has left."""
        states, begun = self.states(), self.begun()
        ended = Counter(effect.job for effect in self.effects() if effect.what == "end")
        assert {job for jobs in states.values() for job in jobs} == set(self.kinds), "lost"
        assert {state: len(jobs) for state, jobs in states.items()} == self.counts()
        assert set(states) <= {JobState.COMPLETED, JobState.FAILED, JobState.UNCERTAIN}
        for job in states.get(JobState.COMPLETED, set()):
            assert ended[job] >= 1, f"{job} is completed and was never done"
        for job in self.of("once"):
            assert begun[job] <= 1, f"{job} was done twice"
        assert states.get(JobState.UNCERTAIN, set()) <= self.of("once")
        for job, detail in self.details().items():
            self._check_attempts(job, detail, begun[job])
        left = self.ask(lambda opened: opened.store.processes())
        assert left == [], left
        assert not list(self.journals.glob("*.journal"))

    def _check_attempts(self, job: int, detail: JobDetail, begun: int) -> None:
        row, steps = detail.row, [attempt.step for attempt in detail.attempts]
        lasting = [step for step in steps if step in FINAL_STEPS]
        assert len({attempt.lease for attempt in detail.attempts}) == len(steps)
        assert steps.count("die") == row.deaths
        match row.state:
            case JobState.COMPLETED:
                assert lasting == []
                assert row.attempt == 1
                assert begun >= 1
            case JobState.UNCERTAIN:
                assert lasting == ["lose"]
            case _:
                assert row.reason == "worker died", (job, row)


_OPEN = (
    JobState.SCHEDULED, JobState.AVAILABLE, JobState.RUNNING, JobState.RETRYABLE,
)  # fmt: skip


async def _counts(opened: Queue) -> dict[JobState, int]:
    counts: Counter[JobState] = Counter()
    for figures in await opened.store.queue_figures():
        counts.update(figures.counts)
    return {state: jobs for state, jobs in counts.items() if jobs}


def until(true: Callable[[], object]) -> None:
    """Asks until it is so: for what no process tells."""
    limit_s = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < limit_s, "it never came to that"
        time.sleep(0.02)
