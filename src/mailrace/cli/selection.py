"""The options that say which jobs are meant."""

from dataclasses import dataclass
from typing import Annotated

import msgspec
from cyclopts import Group, Parameter

from mailrace.cli.durations import seconds
from mailrace.errors import MisuseError
from mailrace.jobs import JobFilter, JobState, Queue

_WHICH = Parameter(group=Group("Which jobs", sort_key=1))


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Selection:
    """What all has to hold for a job that is meant.

    Attributes:
        state: In this state. May be given again.
        queue: In this queue.
        kind: Of this kind.
        tenant: Of this tenant.
        tag: With this tag.
        category: With this kind of error: provider, network, data or system.
        reason: With this reason.
        text: With this text in its reason, detail or payload.
        batch: Of this batch, by name or number.
        older: Ended longer ago than this, such as 30d.
    """

    state: Annotated[tuple[JobState, ...], _WHICH] = ()
    queue: Annotated[str | None, _WHICH] = None
    kind: Annotated[str | None, _WHICH] = None
    tenant: Annotated[str | None, _WHICH] = None
    tag: Annotated[str | None, _WHICH] = None
    category: Annotated[str | None, _WHICH] = None
    reason: Annotated[str | None, _WHICH] = None
    text: Annotated[str | None, _WHICH] = None
    batch: Annotated[str | None, _WHICH] = None
    older: Annotated[str | None, _WHICH] = None

    @property
    def empty(self) -> bool:
        """Whether it means every job."""
        return self == Selection()

    async def filter(self, queue: Queue) -> JobFilter:
        """The same for the store, whose clock says what is older.

        Raises:
            MisuseError: A value is none, or there is no such batch.
        """
        before_ms = None
        if self.older is not None:
            age_s = seconds(self.older, "--older")
            before_ms = await queue.store.now_ms() - int(age_s * 1000)
        return JobFilter(
            states=self.state or None,
            queue=self.queue,
            kind=self.kind,
            tenant=self.tenant,
            tag=self.tag,
            category=self.category,
            reason=self.reason,
            text=self.text,
            batch_id=await self._batch_id(queue),
            ended_before_ms=before_ms,
        )

    async def _batch_id(self, queue: Queue) -> int | None:
        if self.batch is None:
            return None
        batches = await queue.store.batches()
        for batch in batches:
            if self.batch in {batch.name, str(batch.id)}:
                return batch.id
        names = ", ".join(batch.name for batch in batches[:10]) or "none"
        raise MisuseError(f"there is no batch {self.batch!r}", hint=f"in this store: {names}")


def narrowed(where: JobFilter, states: tuple[JobState, ...], verb: str) -> JobFilter:
    """The filter for a change that only jobs in some states allow.

    Raises:
        MisuseError: A state was asked for in which it cannot be.
    """
    for state in where.states or ():
        if state not in states:
            raise MisuseError(
                f"a job that is {state} cannot be {verb}",
                hint=f"give --state {', '.join(states)}, or none",
            )
    return msgspec.structs.replace(where, states=where.states or states)
