"""What a person sees: the bar on a terminal, a line every ten seconds elsewhere."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from mailrace.cli import main
from mailrace.cli.progress import BarFace, LineFace, rate_over, watch
from mailrace.cli.snapshot import Snapshot, line, snapshot
from mailrace.cli.words import pace, span, without_passwords
from mailrace.clock import Alarm
from mailrace.mail.sending import Intake
from mailrace.queue import BatchReport, JobState
from mailrace.queue.words import counted
from tests.support.command import arguments, environment, send_words, write_campaign
from tests.support.recording import RecordingServer


class HandClock:
    """A clock that is moved by hand; sleeping moves it too."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_s(self) -> float:
        return self.now_s

    async def sleep_s(self, seconds: float) -> None:
        self.now_s += seconds

    def call_at_s(self, at_s: float, callback: Callable[[], object]) -> Alarm:
        raise NotImplementedError


def moment(
    *,
    sent: int = 0,
    failed: int = 0,
    uncertain: int = 0,
    waiting: int = 0,
    retrying: int = 0,
    rate: float = 0.0,
    next_due_s: float | None = None,
    why: str = "",
) -> Snapshot:
    return Snapshot(
        sent=sent,
        failed=failed,
        uncertain=uncertain,
        waiting=waiting,
        retrying=retrying,
        rate=rate,
        next_due_s=next_due_s,
        why=why,
    )


class StoppedError(Exception):
    """Ends what would go on for ever."""


class Terminal:
    """A process on a pseudo-terminal, and everything it has written there."""

    def __init__(self, words: list[str], folder: Path, columns: int) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs
        self.written = ""
        # In a session of its own, the first terminal that is opened becomes the controlling one.
        device = os.ttyname(theirs)
        self.process = subprocess.Popen(
            ["sh", "-c", f'exec "$@" <{device} >{device} 2>&1', "sh", *words],
            cwd=folder,
            env=environment() | {"TERM": "xterm-256color"},
            start_new_session=True,
        )

    @property
    def text(self) -> str:
        """What was written, without what moves the cursor and colours."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.written).replace("\r", "")

    def until(self, wanted: str) -> None:
        """Reads until a pattern was shown."""
        deadline_s = time.monotonic() + 30
        while not re.search(wanted, self.text):
            ready, _, _ = select.select([self._ours], [], [], deadline_s - time.monotonic())
            assert ready, self.text
            self.written += os.read(self._ours, 1 << 16).decode(errors="replace")

    def press(self, key: bytes) -> None:
        os.write(self._ours, key)

    def ended(self) -> int:
        """Waits for the end and reads the rest; the exit code."""
        code = self.process.wait(timeout=30)
        while select.select([self._ours], [], [], 0)[0]:
            self.written += os.read(self._ours, 1 << 16).decode(errors="replace")
        return code

    @property
    def restored(self) -> bool:
        """Whether the terminal is as it was: its modes, and the cursor shown."""
        same = termios.tcgetattr(self._theirs) == self.before
        return same and self.written.rfind("\x1b[?25h") > self.written.rfind("\x1b[?25l")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)


@contextmanager
def terminal(words: list[str | Path], folder: Path, columns: int = 80) -> Iterator[Terminal]:
    shown = Terminal(arguments(*words), folder, columns)
    try:
        yield shown
    finally:
        shown.close()


@pytest.mark.parametrize("columns", [80, 40])
def test_a_run_under_a_limit_and_ctrl_c(tmp_path: Path, columns: int) -> None:
    write_campaign(tmp_path, [f"person{n}@example.net" for n in range(1000)])
    with (
        RecordingServer() as server,
        terminal(send_words(server.url, rate="20/s"), tmp_path, columns) as shown,
    ):
        shown.until(r"sent\u00a0[1-9]\d*")
        shown.until(r"waiting\u00a09\d\d")
        shown.until(r"held by the\s+limit of\s+20/s \(--rate\)")
        shown.until(r"\d+ s left")
        shown.press(b"\x03")
        assert shown.ended() == 3
        assert "Stopping." in shown.text
        assert "people: stopped before the end; nothing is lost" in shown.text
        assert "to go on:" in shown.text
        assert "Traceback" not in shown.text
        assert shown.restored


def test_ctrl_c_twice(tmp_path: Path) -> None:
    write_campaign(tmp_path, [f"person{n}@example.net" for n in range(10)])
    full = threading.Event()
    with (
        RecordingServer(
            delay_s=600, on_message=lambda total: full.set() if total == 5 else None
        ) as server,
        terminal(send_words(server.url), tmp_path) as shown,
    ):
        assert full.wait(30)
        shown.until(r"held by the server, which takes its time on 5 connections \(--workers\)")
        shown.press(b"\x03")
        shown.until(r"Stopping\. 5 messages in flight will be finished\.")
        shown.press(b"\x03")
        assert shown.ended() == 3
        assert "Stopping at once." in shown.text
        assert "uncertain 5" in shown.text
        assert shown.restored


def test_only_retries_left(tmp_path: Path) -> None:
    write_campaign(tmp_path, ["ada@example.net"])
    with (
        RecordingServer(answer=lambda _: "450 4.2.1 later") as server,
        terminal(send_words(server.url, "--retry", "1h"), tmp_path) as shown,
    ):
        shown.until(r"1 retry to come +next try at \d\d:\d\d:\d\d, in (1 h 0 min|59 min)")
        shown.process.send_signal(signal.SIGTERM)
        assert shown.ended() == 3
        assert shown.restored


def test_nothing_is_drawn_where_there_is_no_terminal(tmp_path: Path) -> None:
    write_campaign(tmp_path, ["ada@example.net"])
    done = subprocess.run(
        arguments(*send_words("sandbox:outbox")),
        cwd=tmp_path,
        env=environment() | {"TERM": "xterm-256color"},
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert b"\x1b" not in done.stdout + done.stderr
    assert done.stderr == b""


async def test_a_plain_line_every_ten_seconds() -> None:
    clock, lines = HandClock(), list[tuple[float, str]]()
    face = LineFace(lambda text: lines.append((clock.now_s - 1000, text)), clock)

    async def look(rate: float) -> Snapshot:
        if clock.now_s > 1031:
            raise StoppedError
        gone = round((clock.now_s - 1000) * 20)
        return moment(sent=gone, waiting=1000 - gone, rate=rate, why="the limit of 20/s (--rate)")

    with pytest.raises(StoppedError):
        await watch(look, face, clock)
    assert [at for at, _ in lines] == [10, 20, 30]
    assert lines[1][1] == (
        "sent 400 of 1,000  failed 0  waiting 600  uncertain 0  20/s  30 s left  "
        "held by the limit of 20/s (--rate)"
    )


def test_reading_is_shown_every_ten_seconds() -> None:
    clock, lines = HandClock(), list[str]()
    face = LineFace(lines.append, clock)
    face.checking(10_000)
    clock.now_s += 10
    face.checking(20_000)
    face.reading(Intake(added=1000))
    clock.now_s += 10
    face.reading(Intake(added=1500, known=500))
    assert lines == ["checking  20,000 rows", "storing  2,000 rows"]


def test_what_is_to_come() -> None:
    due = moment(sent=1, waiting=2, retrying=2, next_due_s=1065.0)
    assert "2 retries to come  next try at" in line(due, 1000.0)
    assert line(due, 1000.0).endswith(", in 1 min 5 s")
    assert line(due, 1070.0).endswith(", in 0 s")
    assert line(moment(sent=5), 0.0) == "sent 5 of 5  failed 0  waiting 0  uncertain 0"
    assert line(moment(waiting=7, rate=0.5), 0.0).endswith("30/min  14 s left")


@pytest.mark.parametrize("columns", [80, 40, 10])
def test_the_bar_fits_its_terminal(columns: int) -> None:
    out = StringIO()
    console = Console(file=out, force_terminal=True, width=columns, color_system=None)
    with BarFace(console, HandClock()) as face:
        face.checking(10_000)
        face.reading(Intake(added=5))
        face.show(moment(sent=50, failed=1, uncertain=2, waiting=47, rate=3.0, why="the server"))
        face.say("[not markup]")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", out.getvalue())
    assert max(map(len, re.split(r"[\r\n]", shown))) <= max(columns, len("[not markup]"))
    if columns == 80:
        assert "sent\u00a050   failed\u00a01   waiting\u00a047   uncertain\u00a02" in shown
        assert "53 %" in shown
        assert "3.0/s   16 s left   held by the server" in shown
        assert "[not markup]" in shown


def test_a_snapshot_adds_up_and_sees_that_only_retries_are_left() -> None:
    counts = dict.fromkeys(JobState, 0) | {
        JobState.COMPLETED: 4,
        JobState.FAILED: 1,
        JobState.UNCERTAIN: 2,
        JobState.RETRYABLE: 3,
    }
    report = BatchReport(
        id=1, name="b", kind="campaign", created_ms=0, counts=counts,
        next_due_ms=5000, first_ms=0, last_ms=0, rate=0.0,
    )  # fmt: skip
    now = snapshot(report, rate=1.0, why="")
    assert now.people == sum(counts.values()) == 10
    assert (now.final, now.waiting, now.next_due_s) == (7, 3, 5.0)
    counts[JobState.AVAILABLE] = 1
    busy = snapshot(report, rate=1.0, why="")
    assert (busy.waiting, busy.next_due_s, busy.left_s) == (4, None, 1.0)


def test_the_rate_just_now() -> None:
    """Three seconds where they hold enough, a minute for slow runs."""
    fast = deque([(0.0, 0), (57.0, 100), (58.5, 250), (60.0, 400)])
    assert rate_over(fast) == pytest.approx(100)
    slow = deque([(0.0, 0), (30.0, 3), (57.5, 5), (60.0, 6)])
    assert rate_over(slow) == pytest.approx(0.1)
    assert rate_over(deque([(5.0, 7)])) == 0


def test_words() -> None:
    assert [counted(n, "row") for n in (0, 1, 2000)] == ["0 rows", "1 row", "2,000 rows"]
    assert counted(1, "person", "people") == "1 person"
    assert counted(2, "person", "people") == "2 people"
    assert [span(s) for s in (0.04, 0.35, 8, 9.96, 59, 61, 3600 * 2.5)] == [
        "0 s", "0.3 s", "8 s", "10 s", "59 s", "1 min 1 s", "2 h 30 min",
    ]  # fmt: skip
    assert [pace(r) for r in (0, 1 / 60, 0.5, 2.54, 9.97, 1234.5)] == [
        "0/s", "1/min", "30/min", "2.5/s", "10/s", "1,234/s",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("shown", "hidden"),
    [
        ("smtp://ann:secret@h", "smtp://ann:PASSWORD@h"),
        ("smtp://ann:secret@h?tls=off&timeout=3", "smtp://ann:PASSWORD@h?tls=off&timeout=3"),
        ("--via=smtps://ann:s%40t@h:465", "--via=smtps://ann:PASSWORD@h:465"),
        ("postgresql://ann:secret@db/mail", "postgresql://ann:PASSWORD@db/mail"),
        ("smtp://relay.example:587", "smtp://relay.example:587"),
        ("https://example.com:8080/u?who=a@b.c", "https://example.com:8080/u?who=a@b.c"),
        ("Ann <ann@example.com>", "Ann <ann@example.com>"),
    ],
)
def test_passwords_are_taken_out(shown: str, hidden: str) -> None:
    assert without_passwords(shown) == hidden


def test_help(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for command in ([], ["send", "--help"], ["status", "--help"], ["demo", "--help"]):
        assert main(command) == 0
        out = capsys.readouterr().out
        assert out.startswith("Usage: mailrace")
        assert "[default" not in out
        if command[:1] == ["send"]:
            assert '"Ann <ann@example.com>"' in out
            assert "--no-dry-run" not in out
