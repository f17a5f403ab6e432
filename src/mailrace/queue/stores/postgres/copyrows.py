"""Jobs as COPY takes them. Pure.

A row of it costs half of what the same job costs as JSON (benchmarks/bench_queue.py). It has room
for jobs for which nothing has to be looked up, reckoned or refused; the others go as JSON.
"""

from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any, Final, Self

from mailrace.queue.jobs import NewJob

JOBS_MIN: Final = 500
"""Below so many jobs the round trips of a COPY cost more than it saves."""
# Written in blocks of so many rows: the server takes in one while the next is made.
_BLOCK: Final = 250
_SMALLINT_MAX: Final = 32_767
_PRIORITY_MAX: Final = 9
_ESCAPES: Final = ((b"\\", b"\\\\"), (b"\n", b"\\n"), (b"\r", b"\\r"), (b"\t", b"\\t"))

# What stands in every row between the times and the payload, as in copy.sql.
_COLUMNS: Final = ("kind", "queue", "tenant", "priority", "batch_id", "attempts", "lane", "key")
# What there is no column for.
_UNSET: Final = (
    "run_at_ms", "delay_ms", "expires_at_ms", "expires_in_ms", "unique", "idempotency", "tags",
)  # fmt: skip
_columns_of = attrgetter(*_COLUMNS, *_UNSET)

_Columns = tuple[Any, ...]


class CopyRows:
    """The rows of some jobs: the columns that many of them share are written once."""

    def __init__(
        self, columns: list[_Columns], texts: dict[_Columns, bytes], payloads: list[bytes]
    ) -> None:
        self._columns = columns
        self._texts = texts
        self._payloads = payloads

    @classmethod
    def of(cls, jobs: Sequence[NewJob]) -> Self | None:
        """`None` where they are better or only written as JSON."""
        if len(jobs) < JOBS_MIN:
            return None
        columns = [_columns_of(job) for job in jobs]
        different = set(columns)
        if not all(map(_fit, different)):
            return None
        texts = {one: _text(one) for one in different}
        payloads = [bytes(job.payload) for job in jobs]
        whole = b"".join(payloads)
        if b"\\u" in whole:  # it may be a character that no text can hold
            return None
        if any(plain in whole for plain, _ in _ESCAPES):
            payloads = [_escaped(payload) for payload in payloads]
        return cls(columns, texts, payloads)

    def blocks(self, ids: Sequence[int], present: str) -> Iterator[bytes]:
        """The rows, some at a time.

        Args:
            present: When they are enqueued and due, as the server wrote it.
        """
        at = present.encode()
        texts = {one: b"\t".join((at, at, text)) for one, text in self._texts.items()}
        for start in range(0, len(ids), _BLOCK):
            block = slice(start, start + _BLOCK)
            rows = zip(ids[block], self._columns[block], self._payloads[block], strict=True)
            yield b"".join([b"%d\t%b\t%b\n" % (id_, texts[one], body) for id_, one, body in rows])


def _fit(columns: _Columns) -> bool:
    """Whether a row has room for such a job, and the server would not refuse it."""
    kind, queue, tenant, priority, _, attempts, _, key = columns[: len(_COLUMNS)]
    return (
        kind != ""
        and not any("\0" in text for text in (kind, queue, tenant, key or ""))
        and -_PRIORITY_MAX <= priority <= _PRIORITY_MAX
        and (attempts is None or 1 <= attempts <= _SMALLINT_MAX)
        and all(value is None or value == () for value in columns[len(_COLUMNS) :])
    )


def _text(columns: _Columns) -> bytes:
    *fields, key = columns[: len(_COLUMNS)]
    return b"\t".join(_field(value) for value in (*fields, key or None))


def _field(value: str | int | None) -> bytes:
    return b"\\N" if value is None else _escaped(str(value).encode())


def _escaped(text: bytes) -> bytes:
    for plain, escaped in _ESCAPES:
        text = text.replace(plain, escaped)
    return text
