"""A filter of jobs as SQL: built from the pieces in this file, with every value bound."""

import sqlite3
from dataclasses import dataclass
from typing import Final

import msgspec

from mailrace.queue.jobrows import JobFilter
from mailrace.queue.states import WAITING, JobState
from mailrace.queue.stores.sqlite.database import statement

# Up to so many jobs are gathered by an index and sorted; beyond, they are dense enough to be met
# soon when walking through the jobs by their ids.
_GATHER_MAX = 20_000

_CONDITIONS: Final = {
    "ids": "id IN (SELECT value FROM json_each(:ids))",
    "queue": "queue = :queue",
    "kind": "kind = :kind",
    "tenant": "tenant = :tenant",
    "batch_id": "batch_id = :batch_id",
    "tag": "EXISTS (SELECT 1 FROM json_each(tags) WHERE value = :tag)",
    "category": "category = :category",
    "reason": "reason = :reason",
    "text": (
        "(reason LIKE :text ESCAPE '\\' OR detail LIKE :text ESCAPE '\\'"
        " OR payload LIKE :text ESCAPE '\\')"
    ),
    "ended_before_ms": "ended_ms < :ended_before_ms",
    "ended_after_ms": "ended_ms >= :ended_after_ms",
}


@dataclass(frozen=True, slots=True)
class Source:
    """An index that has all jobs of some states.

    Attributes:
        index: Its name.
        terms: Its condition, as it stands in the schema.
        by_queue: Whether it finds the jobs of one queue.
    """

    states: frozenset[JobState]
    index: str
    terms: str
    by_queue: bool


SOURCES: Final = (
    Source(
        frozenset(WAITING), "jobs_ready",
        "state IN ('scheduled', 'available', 'retryable') AND NOT blocked", by_queue=True,
    ),
    Source(frozenset(WAITING), "jobs_blocked", "blocked", by_queue=True),
    Source(frozenset({JobState.RUNNING}), "jobs_running", "state = 'running'", by_queue=False),
    Source(
        frozenset(
            {JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED, JobState.UNCERTAIN}
        ),
        "jobs_ended", "ended_ms IS NOT NULL AND state <> 'completed'", by_queue=False,
    ),
    Source(
        frozenset({JobState.COMPLETED}), "jobs_completed", "state = 'completed'", by_queue=True
    ),
)  # fmt: skip


class Filter:
    """A `JobFilter` that SQLite understands.

    Attributes:
        values: What its conditions name.
        states: Which states it lets through.
    """

    def __init__(self, where: JobFilter, among: frozenset[JobState] = frozenset(JobState)) -> None:
        self.where = where
        self.states = among & frozenset(JobState if where.states is None else where.states)
        given = {name: value for name in _CONDITIONS if (value := getattr(where, name)) is not None}
        self._conditions = [_CONDITIONS[name] for name in given]
        # Words of a closed set: as literals they let SQLite see which partial index may be used.
        self._conditions.append(f"state IN ({_literals(self.states)})")
        self.values: dict[str, object] = given
        if where.ids is not None:
            self.values["ids"] = msgspec.json.encode(where.ids).decode()
        if where.text is not None:
            self.values["text"] = f"%{_escaped(where.text)}%"

    @property
    def conditions(self) -> str:
        return " AND ".join(self._conditions)

    @property
    def sources(self) -> list[Source]:
        return [source for source in SOURCES if source.states & self.states]

    def gathered(self, connection: sqlite3.Connection) -> str:
        """The table to look in, with what has to hold there so that an index is used."""
        if self.where.ids is not None:
            return f"FROM jobs WHERE {self.conditions}"
        if self._weight(connection) <= _GATHER_MAX:
            parts = " UNION ALL ".join(
                f"SELECT id FROM jobs INDEXED BY {source.index} WHERE {self.terms_of(source)}"  # noqa: S608 - pieces of this file
                for source in self.sources
            )
            return f"FROM jobs WHERE id IN ({parts}) AND {self.conditions}"
        if self.where.batch_id is not None:
            return f"FROM jobs INDEXED BY jobs_batch WHERE {self.conditions}"
        return f"FROM jobs NOT INDEXED WHERE {self.conditions}"

    def terms_of(self, source: Source) -> str:
        """What finds the jobs in an index."""
        narrowed = source.by_queue and self.where.queue is not None
        return f"{source.terms} AND queue = :queue" if narrowed else source.terms

    def _weight(self, connection: sqlite3.Connection) -> int:
        """How many jobs the indexes would give, by the kept counts."""
        values = {"queue": self.where.queue}
        rows = connection.execute(statement("counts_by_state"), values).fetchall()
        jobs = {JobState(state): (everywhere, here) for state, everywhere, here in rows}
        weight = 0
        for state in set().union(*(source.states for source in self.sources)):
            everywhere, here = jobs.get(state, (0, 0))
            by_queue = any(source.by_queue for source in self.sources if state in source.states)
            weight += here if by_queue and self.where.queue is not None else everywhere
        return weight


def _literals(states: frozenset[JobState]) -> str:
    return ", ".join(f"'{state.value}'" for state in sorted(states))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
