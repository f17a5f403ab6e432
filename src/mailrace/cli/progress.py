"""Showing a run while it goes on: a bar on a terminal, a line every ten seconds elsewhere."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mailrace.cli.snapshot import Snapshot, line, outlook
from mailrace.clock import Clock
from mailrace.mail.sending import Intake

_LOOK_S = 0.25
_LINE_S = 10.0
_RATE_OVER_S = 3.0


class Face(Protocol):
    """Where a run is shown."""

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


class BarFace:
    """A bar with the figures under it, drawn again and again."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console = console
        self._clock = clock
        self._live = Live(console=console, refresh_per_second=8, transient=True)

    def reading(self, intake: Intake) -> None:
        self._live.update(Text(f"reading  {intake.added + intake.known:,} people"))

    def show(self, now: Snapshot) -> None:
        grid = Table.grid(padding=(0, 1))
        grid.add_row(
            ProgressBar(total=max(1, now.people), completed=now.final, width=40),
            f"{100 * now.final / max(1, now.people):.0f} %",
            f"[green]sent {now.sent:,}[/]  [red]failed {now.failed:,}[/]  "
            f"waiting {now.waiting:,}  [yellow]uncertain {now.uncertain:,}[/]",
        )
        rows = Table.grid()
        rows.add_row(grid)
        rest = "   ".join([f"{now.rate:,.0f}/s", *outlook(now, self._clock.unix_s())])
        rows.add_row(Text(rest, style="dim"))
        self._live.update(rows)

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


class LineFace:
    """A plain line every ten seconds."""

    def __init__(self, write: Callable[[str], None], clock: Clock) -> None:
        self._write = write
        self._clock = clock
        self._shown_s = clock.monotonic_s()

    def reading(self, intake: Intake) -> None:
        if self._is_time():
            self._write(f"reading  {intake.added + intake.known:,} people")

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
    """Looks at the run and shows it, until it is cancelled."""
    seen: deque[tuple[float, int]] = deque()
    rate = 0.0
    while True:
        now = await look(rate)
        seen.append((clock.monotonic_s(), now.final))
        while seen[-1][0] - seen[0][0] > _RATE_OVER_S:
            seen.popleft()
        rate = rate_over(seen)
        face.show(now)
        await asyncio.sleep(_LOOK_S)


def rate_over(seen: deque[tuple[float, int]]) -> float:
    """Messages a second between the first and the last look."""
    seconds = seen[-1][0] - seen[0][0]
    return (seen[-1][1] - seen[0][1]) / seconds if seconds > 0 else 0.0
