"""Jobs as people look at them: lists, details, dead letters."""

from typing import Final

import msgspec

from mailrace.errors import MisuseError
from mailrace.queue.states import JobState

_IDS_MAX: Final = 1000
_TEXTS: Final = ("queue", "kind", "tenant", "tag", "category", "reason", "text")
_NUMBERS: Final = ("batch_id", "ended_before_ms", "ended_after_ms")


class JobFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs are meant; what is not given means any. All that is given has to hold.

    Attributes:
        ids: These; no more than a thousand.
        states: In one of these; names such as `failed` will do.
        text: What reason, detail or payload contain, without regard to case.
        category: The kind of error: provider, network, data, system.
        ended_before_ms: Final before this Unix time in milliseconds; `ended_after_ms`: at it or
            later.
    """

    ids: tuple[int, ...] | None = None
    states: tuple[JobState, ...] | None = None
    queue: str | None = None
    kind: str | None = None
    tenant: str | None = None
    batch_id: int | None = None
    tag: str | None = None
    category: str | None = None
    reason: str | None = None
    text: str | None = None
    ended_before_ms: int | None = None
    ended_after_ms: int | None = None

    def __post_init__(self) -> None:
        if self.ids is not None:
            msgspec.structs.force_setattr(self, "ids", _ids(self.ids))
        if self.states is not None:
            msgspec.structs.force_setattr(self, "states", _states(self.states))
        for name in _TEXTS:
            value: object = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise MisuseError(f"{name} is {value!r}", hint="give a text")
        for name in _NUMBERS:
            value = getattr(self, name)
            if value is not None and not _is_whole(value):
                raise MisuseError(f"{name} is {value!r}", hint="give a whole number")

    @property
    def everything(self) -> bool:
        """Whether it leaves out no job."""
        return self == JobFilter()


def _ids(given: object) -> tuple[int, ...]:
    if not isinstance(given, tuple | list) or not all(map(_is_whole, given)):
        raise MisuseError(f"ids is {given!r}", hint="give a tuple of numbers: (job.id,)")
    if len(given) > _IDS_MAX:
        raise MisuseError(f"{len(given)} ids are too many", hint=f"give at most {_IDS_MAX} a call")
    return tuple(given)


def _states(given: object) -> tuple[JobState, ...]:
    if not isinstance(given, tuple | list | set | frozenset):
        raise MisuseError(f"states is {given!r}", hint="give a tuple of states: (JobState.FAILED,)")
    for state in given:
        if state not in tuple(JobState):
            raise MisuseError(
                f"states has {state!r}, which is none", hint=f"there are {', '.join(JobState)}"
            )
    return tuple(map(JobState, given))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class JobRow(msgspec.Struct, frozen=True, kw_only=True):
    """A job as a list shows it."""

    id: int
    state: JobState
    kind: str
    queue: str
    tenant: str
    priority: int
    attempt: int
    attempts: int | None
    deaths: int
    snoozes: int
    key: str | None
    batch_id: int | None
    tags: tuple[str, ...]
    lane: str | None
    created_ms: int
    run_at_ms: int
    expires_ms: int | None
    ended_ms: int | None
    process_id: int | None
    category: str
    reason: str
    detail: str


class AttemptRow(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that did not end well, or that a person should know of.

    A first attempt that completed the job leaves no row of its own: the job itself says it.
    """

    lease: int
    attempt: int
    at_ms: int
    step: str
    category: str
    reason: str
    detail: str


class JobDetail(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a job.

    Attributes:
        payload: The JSON value, sealed if it was sealed.
        result: What the handler returned, if the job completed.
        attempts: The oldest first.
    """

    row: JobRow
    payload: msgspec.Raw
    result: msgspec.Raw | None
    attempts: list[AttemptRow]


class EndedCount(msgspec.Struct, frozen=True, kw_only=True):
    """Final jobs that did not complete, grouped.

    Attributes:
        first_ms: When the first of them ended; `last_ms`: the last.
    """

    state: JobState
    queue: str
    kind: str
    category: str
    reason: str
    jobs: int
    first_ms: int
    last_ms: int
