"""What a worker is set to, from the texts of the settings."""

import re
from types import MappingProxyType
from typing import Final

from mailrace.cli.durations import seconds
from mailrace.errors import MisuseError
from mailrace.jobs import JobState, WorkerSettings
from mailrace.pool import Rate
from mailrace.queue.memory import MIB
from mailrace.queue.states import FINAL
from mailrace.queue.upkeep import DEFAULT_KEEP_S
from mailrace.settings import Settings

_QUEUE: Final = "write it like mail or mail:3; a name with a colon needs a weight: a:b:1"
_FIELD: Final = re.compile(r"\b([a-z]+)_s\b")
_MEMORY: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([KMG])", re.IGNORECASE)
_UNITS: Final = MappingProxyType({"K": MIB // 1024, "M": MIB, "G": MIB * 1024})


def duties(settings: Settings) -> WorkerSettings:
    """The worker's own settings.

    Raises:
        MisuseError: A text cannot be read, or a value cannot be; says what to write.
    """
    queues, keep_s = weights(settings.queues), keeping(settings.keep)
    memory_max_bytes = memory_bytes(settings.memory)
    try:
        return WorkerSettings(
            queues=queues,
            concurrency=settings.concurrency,
            buffer=settings.buffer,
            grace_s=settings.grace,
            keep_s=keep_s,
            lease_s=settings.lease,
            heartbeat_s=settings.heartbeat,
            memory_max_bytes=memory_max_bytes,
        )
    except MisuseError as error:  # `lease_s` of a program is `--lease` here
        raise MisuseError(_FIELD.sub(r"--\1", error.problem), hint=error.hint) from error


def memory_bytes(text: str | None) -> int | None:
    """Reads `512M`; K, M and G are powers of 1024.

    Raises:
        MisuseError: The text is no amount of memory, or none at all.
    """
    if text is None:
        return None
    found = _MEMORY.fullmatch(text.strip())
    size = 0 if found is None else int(float(found[1]) * _UNITS[found[2].upper()])
    if not size:
        raise MisuseError(f"--memory is {text!r}", hint="write it like 512M or 1.5G: K, M or G")
    return size


def weights(text: str) -> dict[str, float]:
    """Reads `mail:3,reports`: a name with a colon in it has to be given a weight.

    Raises:
        MisuseError: A weight is none, or a queue stands twice.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, weight = _weighted(part.strip())
        if not name or not 0 < weight < 1e6:
            raise MisuseError(f"--queue is {part!r}", hint=_QUEUE)
        if name in found:
            raise MisuseError(f"the queue {name!r} is given twice", hint="give it once")
        found[name] = weight
    return found


def _weighted(part: str) -> tuple[str, float]:
    name, colon, weight = part.rpartition(":")
    if not colon:
        return part, 1.0
    try:
        return name, float(weight)
    except ValueError:
        raise MisuseError(f"--queue is {part!r}", hint=_QUEUE) from None


def target_per_hour(text: str | None) -> float | None:
    """Reads `10000/h`, or another rate, as jobs an hour.

    Raises:
        MisuseError: The text is no rate.
    """
    if text is None:
        return None
    try:
        rate = Rate.parse(text)
    except MisuseError as error:
        raise MisuseError(f"--target is {text!r}", hint="write it like 10000/h") from error
    return rate.count * 3600.0 / rate.window_s


def keeping(text: str) -> dict[JobState, float]:
    """Reads `completed=7d,failed=forever`; states that are not named keep their defaults.

    Raises:
        MisuseError: A state or a time span is none.
    """
    kept = dict(DEFAULT_KEEP_S)
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, span = (piece.strip() for piece in part.partition("="))
        if name not in FINAL:
            states = ", ".join(state for state in JobState if state in FINAL)
            raise MisuseError(f"keep has {part!r}", hint=f"name one of {states}")
        state = JobState(name)
        if span == "forever":
            kept.pop(state, None)
        else:
            kept[state] = seconds(span, f"keep for {name}")
    return kept
