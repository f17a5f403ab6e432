"""From a call's arguments to a job that a store can keep."""

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypedDict

import msgspec

from mailrace.errors import MisuseError
from mailrace.pool.options import Duration, priority_of, seconds
from mailrace.queue.jobs import DEFAULT_QUEUE, Lane, NewJob
from mailrace.queue.kinds import Handlers, check_kind
from mailrace.queue.payloads import PayloadType
from mailrace.queue.sealing import NONCE_BYTES, Sealer, looks_sealed

_ANY: Final = PayloadType(Any)
_TEXT_MAX: Final = 500
_ATTEMPTS_MAX: Final = 10_000


class JobChoices(TypedDict, total=False):
    """What an enqueue may say beside the kind and the payload.

    Attributes:
        queue: Where it waits; by default where its kind says, or `default`.
        tenant: Whose it is: the tenants of a queue take turns, and may have limits of their own.
        priority: `high`, `normal`, `low`, or -9 to 9; of one tenant's jobs the larger goes first.
        delay: Not before so long from now; `run_at`: not before this moment (with a time zone).
        expires: Not to be begun after so long from now.
        unique: While a job of this kind with this text is not final, no second one is made.
        idempotency_key: No second job of this kind is made with this text, also after the first.
        key: What it is about: a queue can bound how many jobs with one key run at a time.
        batch_id: The counted set that it belongs to.
        tags: Words to find it by.
        attempts: How often it may be tried at most.
        lane: `transactional`: an attempt without a result is repeated; `campaign`: it is held as
            uncertain. By default as its kind says.
    """

    queue: str
    tenant: str
    priority: int | str
    delay: Duration
    run_at: dt.datetime
    expires: Duration
    unique: str
    idempotency_key: str
    key: str
    batch_id: int
    tags: Sequence[str]
    attempts: int
    lane: Lane | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafting:
    """Makes jobs: checks what was asked for, and validates, encodes and seals payloads.

    Attributes:
        handlers: The kinds whose payloads have a type; jobs of others are taken as they are.
        sealer: Seals payloads; `None`: they are kept as they are.
        nonces: So many random bytes.
    """

    nonces: Callable[[int], bytes]
    handlers: Handlers | None = None
    sealer: Sealer | None = None

    def job(self, kind: str | Callable[..., Any], payload: object, choices: JobChoices) -> NewJob:
        """One job.

        Raises:
            MisuseError: Something given is wrong; says what.
        """
        return self.jobs(kind, (payload,), choices)[0]

    def jobs(
        self, kind: str | Callable[..., Any], payloads: Sequence[object], choices: JobChoices
    ) -> list[NewJob]:
        """A job for each payload, all with the same choices."""
        name, payload_type, queue = self._kind(kind)
        first = _checked(name, queue, choices)
        encoded = self._sealed(name, [payload_type.encode(payload) for payload in payloads])
        replace = msgspec.structs.replace
        return [replace(first, payload=msgspec.Raw(payload)) for payload in encoded]

    def _kind(self, kind: str | Callable[..., Any]) -> tuple[str, PayloadType, str]:
        if callable(kind):
            if self.handlers is None:
                raise MisuseError(
                    f"{getattr(kind, '__name__', kind)!r} is a function, and no handlers are known",
                    hint="open the queue with handlers=…, or give the name of a kind",
                )
            found = self.handlers.of(kind)
            return found.name, found.payload, found.queue
        check_kind(kind)
        known = None if self.handlers is None else self.handlers.get(kind)
        return (kind, _ANY, DEFAULT_QUEUE) if known is None else (kind, known.payload, known.queue)

    def _sealed(self, kind: str, payloads: list[bytes]) -> list[bytes]:
        if self.sealer is not None:
            nonces = self.nonces(NONCE_BYTES * len(payloads))
            return self.sealer.seal_many(payloads, about=kind.encode(), nonces=nonces)
        if any(map(looks_sealed, payloads)):
            raise MisuseError(
                "the payload looks like a sealed one", hint="rename its key mailrace_sealed"
            )
        return payloads


def _checked(kind: str, queue: str, choices: JobChoices) -> NewJob:
    """The choices as a job without a payload."""
    unknown = set(choices) - set(JobChoices.__annotations__)
    if unknown:
        known = ", ".join(JobChoices.__annotations__)
        raise MisuseError(f"{min(unknown)!r} is nothing to choose", hint=f"there are {known}")
    if "delay" in choices and "run_at" in choices:
        raise MisuseError("delay and run_at were both given", hint="give one of them")
    delay, expires = choices.get("delay"), choices.get("expires")
    return NewJob(
        kind=kind,
        payload=msgspec.Raw(b"null"),
        queue=_text("queue", choices.get("queue", queue)),
        tenant=_text("tenant", choices.get("tenant", ""), empty=True),
        priority=priority_of(choices.get("priority", 0)),
        run_at_ms=_moment_ms(choices.get("run_at")),
        delay_ms=_delay_ms(delay),
        expires_in_ms=None if expires is None else int(seconds(expires, "expires") * 1000),
        unique=_optional("unique", choices.get("unique")),
        idempotency=_optional("idempotency_key", choices.get("idempotency_key")),
        key=_optional("key", choices.get("key")),
        batch_id=_batch_id(choices.get("batch_id")),
        tags=_tags(choices.get("tags", ())),
        attempts=_attempts(choices.get("attempts")),
        lane=_lane(choices.get("lane")),
    )


def _delay_ms(delay: Duration | None) -> int | None:
    zero = delay == 0 and not isinstance(delay, bool)
    if delay is None or zero or delay == dt.timedelta():
        return None
    return int(seconds(delay, "delay") * 1000)


def _moment_ms(moment: object) -> int | None:
    if moment is None:
        return None
    if not isinstance(moment, dt.datetime) or moment.tzinfo is None:
        raise MisuseError(
            f"run_at is {moment!r}", hint="give a datetime with a time zone, or use delay"
        )
    return int(moment.timestamp() * 1000)


def _text(name: str, value: object, *, empty: bool = False) -> str:
    if not isinstance(value, str) or not (value or empty):
        raise MisuseError(f"{name} is {value!r}", hint="give a text")
    if len(value) > _TEXT_MAX or "\0" in value or not value.isprintable():
        raise MisuseError(
            f"{name} is {value[:50]!r}", hint=f"give one line, at most {_TEXT_MAX} characters"
        )
    return value


def _optional(name: str, value: object) -> str | None:
    return None if value is None else _text(name, value)


def _tags(value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise MisuseError(f"tags is {value!r}", hint="give a list of words")
    return tuple(_text("tags", tag) for tag in value)


def _batch_id(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise MisuseError(f"batch_id is {value!r}", hint="give the id of a batch: batch.id")
    return value


def _attempts(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _ATTEMPTS_MAX:
        raise MisuseError(f"attempts is {value!r}", hint=f"give 1 to {_ATTEMPTS_MAX}")
    return value


def _lane(value: object) -> Lane | None:
    if value is None:
        return None
    if not isinstance(value, str) or value not in tuple(Lane):
        raise MisuseError(f"lane is {value!r}", hint="give transactional or campaign")
    return Lane(value)
