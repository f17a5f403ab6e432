"""What a person reads when a run has ended."""

import datetime as dt
import shlex
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mailrace.cli.exits import DONE, FAILURES, STOPPED
from mailrace.cli.words import pace, span, without_passwords
from mailrace.mail.run import Report
from mailrace.queue import End, Reason
from mailrace.queue.words import counted


class Summary(Report, frozen=True, kw_only=True):
    """What `--json` prints at the end of a run.

    Attributes:
        rejected_file: Where the rows are that cannot be sent to.
    """

    exit_code: int
    rejected_file: str | None


def summarise(report: Report, rejected_file: Path | None) -> Summary:
    return Summary(
        **msgspec.structs.asdict(report),
        exit_code=_exit_code(report),
        rejected_file=str(rejected_file) if rejected_file else None,
    )


def _exit_code(report: Report) -> int:
    if report.end is not End.ALL_FINAL:
        return STOPPED
    return FAILURES if report.failed or report.uncertain else DONE


def lines(summary: Summary, command: str | None) -> list[str]:
    """The summary as text.

    Args:
        command: What would go on, if it did not end here.
    """
    text = [
        f"{summary.campaign}: {_verdict(summary)}",
        (
            f"  sent {summary.sent:,}   failed {summary.failed:,}   waiting {summary.waiting:,}   "
            f"uncertain {summary.uncertain:,}   of {counted(summary.people, 'person', 'people')}"
        ),
        *_this_run(summary),
        *reason_lines(summary.reasons),
    ]
    if summary.uncertain:
        text += [
            "  uncertain: handed over, and no reply was seen. Held, so that nobody gets it twice;",
            "             --resend-uncertain sends them again under the same Message-ID",
        ]
    if summary.waiting and summary.next_due_ms:
        text.append(f"  the next retry is due at {_clock_time(summary.next_due_ms)}")
    if summary.waiting and summary.trouble:
        text.append(f"  in the way: {summary.trouble}")
    if summary.exit_code == STOPPED and command is not None:
        text += ["  to go on:", f"    {command}"]
    return text


def _this_run(summary: Summary) -> list[str]:
    text = []
    if summary.ended_here:
        took = f"{counted(summary.ended_here, 'attempt')} in {span(summary.seconds)}"
        text.append(f"  this run: {took}" + _pace(summary))
    if summary.known:
        rows = counted(summary.known, "row")
        text.append(f"  {rows} with an address that was there already: it is written to once")
    if summary.rejected:
        rows = counted(summary.rejected, "row")
        text.append(f"  {rows} that cannot be sent to: see {summary.rejected_file}")
    return text


def _pace(summary: Summary) -> str:
    # Shorter runs say more about starting up than about sending.
    return f", {pace(summary.rate)}" if summary.seconds >= 1 else ""


def _clock_time(unix_ms: int) -> str:
    return f"{dt.datetime.fromtimestamp(unix_ms / 1000).astimezone():%Y-%m-%d %H:%M:%S}"


def reason_lines(reasons: list[Reason]) -> list[str]:
    return [
        f"  {reason.jobs:>8,}  {reason.state}: {f'{reason.reason} {reason.detail}'[:150].rstrip()}"
        for reason in reasons
    ]


def _verdict(summary: Summary) -> str:
    match summary.end:
        case End.ALL_FINAL if summary.failed or summary.uncertain:
            return "finished, not all were sent"
        case End.ALL_FINAL:
            return "all sent"
        case End.LEFT:
            return "left for the next run"
        case End.STOPPED:
            return "stopped before the end; nothing is lost"
        case End.REJECTED:
            return "the provider refused us; nothing is lost"


def continuing(program: str, arguments: Sequence[str]) -> str:
    """The command that goes on, without a password that would stay on the screen."""
    return shlex.join([program, *map(without_passwords, arguments)])
