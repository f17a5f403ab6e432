"""Showing a run while it goes on: a bar on a terminal, a line every ten seconds elsewhere."""

from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mailrace.cli.output import note
from mailrace.cli.snapshot import Snapshot, figures, line, outlook
from mailrace.clock import Clock
from mailrace.mail.sending import Intake

_LOOK_S = 0.25
_LINE_S = 10.0
# The rate is taken over the last seconds; over a minute where these hold too few messages.
_RATE_OVER_S = 3.0
_SLOW_RATE_OVER_S = 60.0
_FEW = 10
_BAR_MAX = 60


class Face(Protocol):
    """Where a run is shown; a context manager."""

    def checking(self, rows: int) -> None: ...

    def reading(self, intake: Intake) -> None: ...

    def show(self, now: Snapshot) -> None: ...

    def say(self, text: str) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None: ...


def face_for(clock: Clock, *, plain: bool) -> Face:
    """A bar if standard error is a terminal that can draw one.

    Args:
        plain: Lines even on a terminal.
    """
    console = Console(stderr=True)
    if console.is_terminal and not console.is_dumb_terminal and not plain:
        return BarFace(console, clock)
    return LineFace(note, clock)


class BarFace:
    """A bar with the figures under it, drawn again and again."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console = console
        self._clock = clock
        self._live = Live(
            console=console,
            refresh_per_second=8,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def checking(self, rows: int) -> None:
        self._live.update(Text(f"checking  {rows:,} rows"))

    def reading(self, intake: Intake) -> None:
        self._live.update(Text(f"storing  {intake.added + intake.known:,} rows"))

    def show(self, now: Snapshot) -> None:
        rows: list[RenderableType] = [self._bar(now), _wrapped(_coloured(now))]
        if rest := outlook(now, self._clock.unix_s()):
            rows.append(_wrapped([Text(part, style="dim") for part in rest]))
        self._live.update(Group(*rows))

    def _bar(self, now: Snapshot) -> Table:
        share = now.final / max(1, now.people)
        width = max(4, min(_BAR_MAX, self._console.width - 6))
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=max(1, now.people), completed=now.final, width=width),
            f"{int(100 * share)} %",
        )
        return bar

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._live.stop()


def _coloured(now: Snapshot) -> list[Text]:
    styles = {"sent": "green", "failed": "red", "uncertain": "yellow"}
    return [
        Text(f"{name}\u00a0{count:,}", style=styles.get(name, "") if count else "")
        for name, count in figures(now)
    ]


def _wrapped(parts: list[Text]) -> Text:
    return Text("   ").join(parts)


class LineFace:
    """A plain line every ten seconds."""

    def __init__(self, write: Callable[[str], None], clock: Clock) -> None:
        self._write = write
        self._clock = clock
        self._shown_s = clock.monotonic_s()

    def checking(self, rows: int) -> None:
        if self._is_time():
            self._write(f"checking  {rows:,} rows")

    def reading(self, intake: Intake) -> None:
        if self._is_time():
            self._write(f"storing  {intake.added + intake.known:,} rows")

    def show(self, now: Snapshot) -> None:
        if self._is_time():
            self._write(line(now, self._clock.unix_s()))

    def _is_time(self) -> bool:
        now_s = self._clock.monotonic_s()
        if now_s - self._shown_s < _LINE_S:
            return False
        self._shown_s = now_s
        return True

    def say(self, text: str) -> None:
        self._write(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        return


async def watch(look: Callable[[float], Awaitable[Snapshot]], face: Face, clock: Clock) -> None:
    """Looks at the run and shows it, until it is cancelled.

    Args:
        look: Given the rate just now, says where the run stands.
    """
    seen: deque[tuple[float, int]] = deque()
    rate = 0.0
    while True:
        now = await look(rate)
        seen.append((clock.monotonic_s(), now.final))
        while seen[-1][0] - seen[0][0] > _SLOW_RATE_OVER_S:
            seen.popleft()
        rate = rate_over(seen)
        face.show(now)
        await clock.sleep_s(_LOOK_S)


def rate_over(seen: deque[tuple[float, int]]) -> float:
    """Messages a second just now, from times and counts of some looks, the last one the newest."""
    last_s, last = seen[-1]
    recent = next((s, count) for s, count in seen if last_s - s <= _RATE_OVER_S)
    for since_s, count in (recent, seen[0]):
        if last - count >= _FEW or (since_s, count) == seen[0]:
            break
    return (last - count) / (last_s - since_s) if last_s > since_s else 0.0
