"""What a person reads when a run has ended."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from mailrace.cli.exits import DONE, FAILURES, STOPPED
from mailrace.cli.snapshot import span
from mailrace.mail.run import Report
from mailrace.queue import End, Reason


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


def lines(summary: Summary, command: str) -> list[str]:
    """The summary as text; `command` is what would go on."""
    text = [
        f"{summary.campaign}: {_verdict(summary)}",
        (
            f"  sent {summary.sent:,}   failed {summary.failed:,}   waiting {summary.waiting:,}   "
            f"uncertain {summary.uncertain:,}   of {summary.people:,} people"
        ),
    ]
    if summary.ended_here:
        text.append(
            f"  {summary.ended_here:,} messages in {span(summary.seconds)}, "
            f"{summary.rate:,.0f} a second"
        )
    if summary.known:
        text.append(f"  {summary.known:,} rows were there already: the same address is sent once")
    if summary.rejected:
        text.append(f"  {summary.rejected:,} rows cannot be sent to: see {summary.rejected_file}")
    text += reason_lines(summary.reasons)
    if summary.uncertain:
        text.append(
            "  uncertain: handed over, no reply seen. Held, so that nobody gets it twice; "
            "--resend-uncertain sends them again under the same Message-ID"
        )
    if summary.trouble:
        text.append(f"  in the way: {summary.trouble}")
    if summary.exit_code == STOPPED:
        text += ["  to go on:", f"    {command}"]
    return text


def reason_lines(reasons: list[Reason]) -> list[str]:
    return [
        f"  {reason.jobs:>8,}  {reason.state}: {f'{reason.reason} {reason.detail}'[:150]}"
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
    return shlex.join([program, *(_without_password(argument) for argument in arguments)])


def _without_password(argument: str) -> str:
    if "://" not in argument:
        return argument
    password = urlsplit(argument.partition("=")[2] or argument).password
    return argument.replace(f":{password}@", ":PASSWORD@") if password else argument
