"""Dead letters: the jobs that failed for good, kept so that a person can look and decide."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mailrace.errors import MisuseError
from mailrace.pool.job import Job
from mailrace.pool.options import Duration, Kind, Terms, seconds
from mailrace.pool.outcome import Attempt, Reason

if TYPE_CHECKING:
    from mailrace.pool.engine import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A job that failed, with everything that is needed to run it again.

    Holds no exception and so no frames: what was raised is told in words.

    Attributes:
        id: The job's number within its pool.
        error_type: The class of what was raised last.
        message: Its text.
        attempts: All attempts, with their times.
        at_unix_s: When it failed for good.
    """

    id: int
    name: str
    reason: Reason
    error_type: str
    message: str
    attempts: tuple[Attempt, ...]
    at_unix_s: float
    key: Hashable
    metadata: Mapping[str, Any]
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any] | None
    terms: Terms
    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterGroup:
    """Dead letters that failed in the same way.

    Attributes:
        first_unix_s: When the oldest of them failed.
        last_unix_s: When the latest one did.
    """

    name: str
    error_type: str
    reason: Reason
    count: int
    first_unix_s: float
    last_unix_s: float


class DeadLetters:
    """A bounded number of them; the oldest give way to new ones, and are counted.

    Args:
        unix_s: Tells the time by which their age is known.

    Attributes:
        evicted: How many had to give way.
    """

    def __init__(self, most: int, unix_s: Callable[[], float]) -> None:
        self._most = most
        self._unix_s = unix_s
        self._letters: OrderedDict[int, DeadLetter] = OrderedDict()
        self._claimed: set[int] = set()
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._letters)

    def __iter__(self) -> Iterator[DeadLetter]:
        """The oldest first."""
        return iter(tuple(self._letters.values()))

    def get(self, job_id: int) -> DeadLetter | None:
        return self._letters.get(job_id)

    def add(self, letter: DeadLetter) -> None:
        self._letters[letter.id] = letter
        self._evict()

    def change(self, most: int) -> None:
        """Keeps so many from now on."""
        self._most = most
        self._evict()

    def take(self, job_id: int) -> DeadLetter | None:
        """Takes one out."""
        return self._letters.pop(job_id, None)

    def claim(self, job_id: int) -> bool:
        """Says whether one is there for the caller alone to run again, until `give_up`."""
        if job_id in self._claimed or job_id not in self._letters:
            return False
        self._claimed.add(job_id)
        return True

    def give_up(self, job_id: int) -> None:
        """Ends a claim; the letter stays unless it was taken."""
        self._claimed.discard(job_id)

    def groups(self) -> tuple[DeadLetterGroup, ...]:
        """What failed how often, the most frequent first."""
        by_kind: dict[tuple[str, str, Reason], list[float]] = {}
        for letter in self._letters.values():
            kind = letter.name, letter.error_type, letter.reason
            by_kind.setdefault(kind, []).append(letter.at_unix_s)
        groups = [
            DeadLetterGroup(
                name=name,
                error_type=error_type,
                reason=reason,
                count=len(times),
                first_unix_s=min(times),
                last_unix_s=max(times),
            )
            for (name, error_type, reason), times in by_kind.items()
        ]
        return tuple(sorted(groups, key=lambda group: (-group.count, group.name)))

    def reasons(self) -> dict[Reason, int]:
        """How many there are for each reason."""
        return dict(Counter(letter.reason for letter in self._letters.values()))

    def purge(self, older_than: Duration | None = None) -> int:
        """Forgets those that failed longer ago than that, or all; says how many.

        Raises:
            MisuseError: It is no time span.
        """
        until_s = float("inf")
        if older_than is not None:
            until_s = self._unix_s() - seconds(older_than, "older_than")
        old = [id_ for id_, letter in self._letters.items() if letter.at_unix_s < until_s]
        for job_id in old:
            del self._letters[job_id]
        return len(old)

    def _evict(self) -> None:
        while len(self._letters) > self._most:
            self._letters.popitem(last=False)
            self.evicted += 1


async def reprocess(engine: "Engine", *ids: int) -> list[Job[Any]]:
    """Submits dead letters of a pool anew: those with these numbers, or all."""
    dead = engine.books.dead
    letters = [_known(dead, job_id) for job_id in ids] if ids else list(dead)
    jobs: list[Job[Any]] = []
    for letter in letters:
        if not dead.claim(letter.id):
            continue
        try:
            job = _made_anew(engine, letter)
            await engine.intake.submit(job, wait=True)
            dead.take(letter.id)
            jobs.append(job)
        finally:
            dead.give_up(letter.id)
    return jobs


def _known(dead: DeadLetters, job_id: int) -> DeadLetter:
    letter = dead.get(job_id)
    if letter is None:
        raise MisuseError(
            f"there is no dead letter {job_id}", hint="look at pool.dead_letters for their ids"
        )
    return letter


def _made_anew(engine: "Engine", letter: DeadLetter) -> Job[Any]:
    job: Job[Any] = Job(
        engine,
        letter.terms,
        letter.kind,
        letter.function,
        letter.args,
        letter.kwargs,
        copy_context(),
        direct=False,
    )
    engine.check(job)
    return job
