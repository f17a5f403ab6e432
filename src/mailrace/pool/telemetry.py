"""OpenTelemetry: a span for each attempt of a job.

    pool = Pool(plugins=[TracingPlugin()])

The span is called like the job. Its parent is the span that was current where the job was
submitted, for each attempt of a job the same one. It is current in the job's function on the
loop and in a thread; a process of its own has no part in it, and its span stands around the call.

| attribute | what it holds |
|---|---|
| `messaging.system` | `mailrace` |
| `messaging.destination.name` | the name of the pool |
| `messaging.operation.name` | `process` |
| `messaging.operation.type` | `process` |
| `messaging.message.id` | the number of the job within its pool |
| `mailrace.job.kind` | where the function runs: `loop`, `thread` or `process` |
| `mailrace.job.attempt` | 1 for the first one |
| `mailrace.job.queue_wait_s` | seconds in the queue before this attempt |
| `mailrace.job.outcome` | how the attempt ended, as a `Reason`: `result`, `error`, `timeout` ... |
| `mailrace.job.key` | the job's key, if asked for |
| `error.type` | the class of what the function raised, `timeout` or `deadline` |

Errors and timeouts give the span the status `ERROR`; a job that was cancelled is no error. What
the function raised is recorded with message and traceback.

Names that begin with `messaging.` and `error.` are those of the semantic conventions for
messaging spans (https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/).
"""

import asyncio
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from mailrace.pool.extras import load
from mailrace.pool.outcome import Reason
from mailrace.pool.plugins import AnyJob, Plugin

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer, TracerProvider

_ERRORS: Final = frozenset({Reason.ERROR, Reason.TIMEOUT, Reason.DEADLINE})


class TracingPlugin(Plugin):
    """Makes a span around each attempt.

    A span that no sampler wants costs the sampler's decision and little more.

    Args:
        tracer_provider: Whose spans they are; OpenTelemetry's global one if not given.
        keys: Put the keys of jobs into the spans. They may be personal data, an address for
            example, and spans leave the house.

    Raises:
        MisuseError: OpenTelemetry is not installed.
    """

    def __init__(
        self, *, tracer_provider: "TracerProvider | None" = None, keys: bool = False
    ) -> None:
        trace = load("opentelemetry.trace", extra="telemetry")
        self._use_span = trace.use_span
        self._consumer = trace.SpanKind.CONSUMER
        self._error = trace.StatusCode.ERROR
        self._tracer: Tracer = trace.get_tracer(
            "mailrace.pool", version("mailrace"), tracer_provider=tracer_provider
        )
        self._keys = keys

    async def around(self, job: AnyJob, proceed: Callable[[], Awaitable[object]]) -> object:
        span = self._tracer.start_span(
            job.name, kind=self._consumer, attributes=self._attributes(job)
        )
        with self._use_span(
            span, end_on_exit=True, record_exception=False, set_status_on_exception=False
        ):
            try:
                value = await proceed()
            except BaseException as error:
                self._note(span, job, error)
                raise
            self._note(span, job, None)
            return value

    def _attributes(self, job: AnyJob) -> dict[str, str | int | float]:
        attributes: dict[str, str | int | float] = {
            "messaging.system": "mailrace",
            "messaging.destination.name": job.engine.name,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.message.id": str(job.id),
            "mailrace.job.kind": job.kind.value,
            "mailrace.job.attempt": job.attempts,
            "mailrace.job.queue_wait_s": job.started_s - job.queued_s,
        }
        if self._keys and job.key is not None:
            attributes["mailrace.job.key"] = str(job.key)
        return attributes

    def _note(self, span: "Span", job: AnyJob, error: BaseException | None) -> None:
        """Writes down how the attempt ended."""
        if not span.is_recording():
            return
        reason = _reason(job, error)
        span.set_attribute("mailrace.job.outcome", reason.value)
        if reason not in _ERRORS:
            return
        if error is None or isinstance(error, asyncio.CancelledError):
            span.set_attribute("error.type", reason.value)
            span.set_status(self._error, "the attempt took too long")
        else:
            span.set_attribute("error.type", _type_name(error))
            span.record_exception(error)
            span.set_status(self._error, f"{type(error).__name__}: {error}")


def _reason(job: AnyJob, error: BaseException | None) -> Reason:
    """How an attempt ended, before anybody has decided whether another one follows."""
    if job.done():
        return job.reason  # given up before its function came back
    if error is None:
        return Reason.RESULT
    ending = None if job.worker is None else job.worker.ending
    if ending is not None:
        return ending
    is_end = isinstance(error, asyncio.CancelledError | GeneratorExit)
    return Reason.HANDLER if is_end else Reason.ERROR


def _type_name(error: BaseException) -> str:
    kind = type(error)
    known = kind.__module__ == "builtins"
    return kind.__qualname__ if known else f"{kind.__module__}.{kind.__qualname__}"
