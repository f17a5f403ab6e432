"""Tracing: one span for each attempt, below the span that was current at the submit."""

import asyncio
import functools
import os
import re
import sys
import threading
from collections.abc import Iterator, Sequence

import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from mailrace.errors import MisuseError
from mailrace.pool import JobTimeoutError, Pool, RetryPolicy, RetrySchedule, current_job, telemetry
from mailrace.pool.telemetry import TracingPlugin
from tests.support.clock import VirtualClock, settle

WAIT_S = 60.0


class Recorder(InMemorySpanExporter):
    """Keeps spans, and tells that one has come."""

    def __init__(self) -> None:
        super().__init__()
        self.came = asyncio.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.came.set()
        return super().export(spans)


class Spans:
    """What a provider has recorded, and a tracer of its own for the program around the pool."""

    def __init__(self) -> None:
        self._exporter = Recorder()
        self.came = self._exporter.came
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.program = self.provider.get_tracer("program")
        self.plugin = TracingPlugin(tracer_provider=self.provider)

    async def next(self) -> None:
        """Waits until a span ends."""
        self.came.clear()
        async with asyncio.timeout(WAIT_S):
            await self.came.wait()

    def ended(self) -> Sequence[ReadableSpan]:
        """Those that the plugin made, in the order of their ends."""
        spans = self._exporter.get_finished_spans()
        return [
            span
            for span in spans
            if span.instrumentation_scope is not None
            and span.instrumentation_scope.name == "mailrace.pool"
        ]

    def only(self) -> ReadableSpan:
        (span,) = self.ended()
        return span


@pytest.fixture
def spans() -> Iterator[Spans]:
    spans = Spans()
    yield spans
    spans.provider.shutdown()


def outcome(span: ReadableSpan) -> object:
    return attribute(span, "mailrace.job.outcome")


def attribute(span: ReadableSpan, name: str) -> object:
    assert span.attributes is not None
    return span.attributes.get(name)


def span_id() -> int:
    current: int = trace.get_current_span().get_span_context().span_id
    return current


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    number: int = span.context.span_id
    return number


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


async def seen() -> tuple[int, int]:
    """The current span before and after a wait."""
    before = span_id()
    await asyncio.sleep(0)
    return before, span_id()


def fail_once() -> int:
    if current_job().attempts == 1:
        raise ValueError("not yet")
    return span_id()


async def test_a_span_says_what_was_run_where_and_how(spans: Spans) -> None:
    clock = VirtualClock()
    async with Pool(name="mails", workers=1, plugins=[spans.plugin], clock=clock) as pool:
        gate = asyncio.Event()
        await pool.submit(gate.wait)
        job = await pool.options(name="welcome", key="ann@example.com").submit(seen)
        await clock.advance(2.5)
        gate.set()
        await job
        first, second = spans.ended()
    assert (first.name, second.name) == ("Event.wait", "welcome")
    assert second.kind is SpanKind.CONSUMER
    assert second.status.status_code is StatusCode.UNSET
    assert dict(second.attributes or {}) == {
        "messaging.system": "mailrace",
        "messaging.destination.name": "mails",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.message.id": "2",
        "mailrace.job.kind": "loop",
        "mailrace.job.attempt": 1,
        "mailrace.job.queue_wait_s": 2.5,
        "mailrace.job.outcome": "result",
    }


async def test_the_span_is_current_in_a_coroutine_function(spans: Spans) -> None:
    async with Pool(plugins=[spans.plugin]) as pool:
        inside = await (await pool.submit(seen))
    assert inside == (id_of(spans.only()), id_of(spans.only()))


async def test_the_span_is_current_in_a_thread(spans: Spans) -> None:
    async with Pool(plugins=[spans.plugin]) as pool:
        inside = await (await pool.submit(span_id))
    assert inside == id_of(spans.only())
    assert attribute(spans.only(), "mailrace.job.kind") == "thread"


async def test_the_span_of_a_process_stands_around_the_call(spans: Spans) -> None:
    async with Pool(workers=1, plugins=[spans.plugin]) as pool:
        assert await (await pool.options(kind="process").submit(os.getpid)) != os.getpid()
    assert attribute(spans.only(), "mailrace.job.kind") == "process"
    assert outcome(spans.only()) == "result"


async def test_the_parent_is_the_span_that_was_current_at_the_submit(spans: Spans) -> None:
    async with Pool(plugins=[spans.plugin]) as pool:
        with spans.program.start_as_current_span("request") as request:
            job = await pool.submit(seen)
        with spans.program.start_as_current_span("other"):
            await job
        assert span_id() == 0
        await (await pool.submit(seen))
    below, alone = spans.ended()
    assert below.parent == request.get_span_context()
    assert alone.parent is None


async def test_the_parent_comes_along_from_another_thread(spans: Spans) -> None:
    async with Pool(plugins=[spans.plugin]) as pool:

        def submit() -> int:
            with spans.program.start_as_current_span("request"):
                pool.submit_threadsafe(seen).result(WAIT_S)
                return span_id()

        request = await asyncio.to_thread(submit)
    assert parent_of(spans.only()) == request


async def test_a_job_of_a_job_is_below_its_attempt(spans: Spans) -> None:
    async with Pool(plugins=[spans.plugin]) as pool:

        async def outer() -> None:
            await (await pool.submit(seen))

        await (await pool.submit(outer))
    inner, above = spans.ended()
    assert parent_of(inner) == id_of(above)


@pytest.mark.parametrize("kind", ["loop", "thread"])
async def test_attempts_are_spans_below_one_parent(kind: str, spans: Spans) -> None:
    clock = VirtualClock()
    async with Pool(plugins=[spans.plugin], clock=clock) as pool:
        retry = RetryPolicy(delays=RetrySchedule(delays_s=(3.0,)))
        retried = pool.options(retry=retry, kind="loop" if kind == "loop" else None)
        with spans.program.start_as_current_span("request") as request:
            job = await retried.submit(fail_once)
        await spans.next()
        await settle()
        await clock.advance(3.0)
        inside = await job
    first, second = spans.ended()
    assert first.parent == second.parent == request.get_span_context()
    assert inside == id_of(second) != id_of(first)
    assert [attribute(span, "mailrace.job.attempt") for span in (first, second)] == [1, 2]
    assert [outcome(span) for span in (first, second)] == ["error", "result"]
    # The wait before the second attempt is in neither.
    assert attribute(second, "mailrace.job.queue_wait_s") == 0


async def test_an_error_is_recorded_with_its_traceback(spans: Spans) -> None:
    async with Pool(plugins=[spans.plugin]) as pool:
        job = await pool.submit(functools.partial(int, "x"))
        with pytest.raises(ValueError, match="invalid literal"):
            await job
        await (await pool.submit(misuse)).outcome()
    span, other = spans.ended()
    assert outcome(span) == "error"
    assert attribute(span, "error.type") == "ValueError"
    assert attribute(other, "error.type") == "mailrace.errors.MisuseError"
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "ValueError: invalid literal for int() with base 10: 'x'"
    (event,) = other.events
    assert event.name == "exception"
    assert event.attributes is not None
    assert event.attributes["exception.message"] == "wrong; mend it"
    assert "in misuse" in str(event.attributes["exception.stacktrace"])


async def misuse() -> None:
    raise MisuseError("wrong", hint="mend it")


async def test_a_timeout_is_an_error_without_exception(spans: Spans) -> None:
    clock = VirtualClock()
    async with Pool(plugins=[spans.plugin], clock=clock) as pool:
        job = await pool.options(timeout=2).submit(asyncio.Event().wait)
        late = await pool.options(deadline=3).submit(asyncio.Event().wait)
        await clock.advance(5)
        with pytest.raises(JobTimeoutError):
            await job
        await late.outcome()
    for span, reason in zip(spans.ended(), ("timeout", "deadline"), strict=True):
        assert outcome(span) == attribute(span, "error.type") == reason
        assert span.status.status_code is StatusCode.ERROR
        assert span.events == ()


async def test_a_function_that_outlives_its_job_ends_its_span_when_it_returns(
    spans: Spans,
) -> None:
    clock, release = VirtualClock(), threading.Event()
    async with Pool(plugins=[spans.plugin], clock=clock) as pool:
        job = await pool.options(timeout=2).submit(release.wait, WAIT_S)
        await settle()
        await clock.advance(2)
        assert (await job.outcome()).reason == "timeout"
        assert spans.ended() == []
        release.set()
        await spans.next()
    assert outcome(spans.only()) == "timeout"
    assert spans.only().status.status_code is StatusCode.ERROR


async def test_what_is_cancelled_is_no_error(spans: Spans) -> None:
    async def give_up() -> None:
        raise asyncio.CancelledError

    async with Pool(plugins=[spans.plugin]) as pool:
        job = await pool.submit(asyncio.Event().wait)
        await settle()
        job.cancel()
        await job.outcome()
        await (await pool.submit(give_up)).outcome()
        await pool.submit(asyncio.Event().wait)
        await settle()
        await pool.close(0)
    assert [outcome(span) for span in spans.ended()] == ["requested", "handler", "closed"]
    for span in spans.ended():
        assert span.status.status_code is StatusCode.UNSET
        assert span.events == ()


async def test_a_span_that_the_function_left_current_is_no_parent_of_the_next_attempt(
    spans: Spans,
) -> None:
    async def careless() -> None:
        context.attach(trace.set_span_in_context(spans.program.start_span("left")))
        if current_job().attempts == 1:
            raise ValueError

    clock = VirtualClock()
    async with Pool(plugins=[spans.plugin], clock=clock) as pool:
        retry = RetryPolicy(delays=RetrySchedule(delays_s=(1.0,)))
        job = await pool.options(retry=retry).submit(careless)
        await clock.advance(1)
        await job
    assert [span.parent for span in spans.ended()] == [None, None]


async def test_keys_are_in_the_span_only_if_asked_for(spans: Spans) -> None:
    with_keys = TracingPlugin(tracer_provider=spans.provider, keys=True)
    async with Pool(plugins=[with_keys]) as pool:
        await (await pool.options(key=("tenant", 7)).submit(seen))
        await (await pool.submit(seen))
    named, nameless = spans.ended()
    assert attribute(named, "mailrace.job.key") == "('tenant', 7)"
    assert attribute(nameless, "mailrace.job.key") is None


async def test_a_span_that_is_not_sampled_is_passed_on(spans: Spans) -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    async with Pool(plugins=[TracingPlugin(tracer_provider=provider)]) as pool:
        inside = await (await pool.submit(seen))
        await (await pool.submit(misuse)).outcome()
    assert inside[0] == inside[1] != 0
    provider.shutdown()


async def test_without_a_provider_jobs_run_all_the_same() -> None:
    async with Pool(plugins=[TracingPlugin()]) as pool:
        assert await (await pool.submit(seen)) == (0, 0)


async def test_every_attribute_is_documented(spans: Spans) -> None:
    documented = set(re.findall(r"^\| `([\w.]+)` \|", telemetry.__doc__ or "", re.MULTILINE))
    plugin = TracingPlugin(tracer_provider=spans.provider, keys=True)
    async with Pool(plugins=[plugin]) as pool:
        await (await pool.options(key="k").submit(misuse)).outcome()
    assert set(spans.only().attributes or {}) == documented


def test_without_the_library_the_command_that_installs_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    with pytest.raises(MisuseError, match=re.escape("pip install 'mailrace[telemetry]'")):
        TracingPlugin()


def test_a_library_that_lacks_something_is_not_called_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def import_module(_: str) -> None:
        raise ModuleNotFoundError("No module named 'elsewhere'", name="elsewhere")

    monkeypatch.setattr("mailrace.pool.extras.import_module", import_module)
    with pytest.raises(ModuleNotFoundError):
        TracingPlugin()
