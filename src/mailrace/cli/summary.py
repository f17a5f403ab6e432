"""What a person reads when a run has ended."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from mailrace.cli.exits import DONE, FAILURES, STOPPED
from mailrace.cli.snapshot import Snapshot, span
from mailrace.mail.sending import Intake
from mailrace.queue import End, Reason


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a run; what `--json` prints. `sent + failed + waiting + uncertain` is `people`.

    Attributes:
        people: Recipients of the campaign, from this run and from earlier ones.
        added: Of these, new in this run.
        known: Rows whose address the campaign had already.
        rejected: Rows that cannot be sent to; they are in `rejected_file`.
        ended_here: Attempts of this process that ended in this run.
        seconds: Time spent sending, without reading the input.
        rate: `ended_here` a second.
        trouble: What was in the way at the end, if anything.
    """

    campaign: str
    end: End
    exit_code: int
    people: int
    sent: int
    failed: int
    waiting: int
    uncertain: int
    added: int
    known: int
    rejected: int
    rejected_file: str | None
    ended_here: int
    seconds: float
    rate: float
    trouble: str | None
    next_due_s: float | None
    reasons: list[Reason]


def exit_code(end: End, now: Snapshot) -> int:
    if end is not End.ALL_FINAL:
        return STOPPED
    return FAILURES if now.failed or now.uncertain else DONE


def summarise(
    *,
    campaign: str,
    end: End,
    now: Snapshot,
    intake: Intake,
    rejected_file: Path | None,
    ended_here: int,
    seconds: float,
    trouble: str | None,
    reasons: list[Reason],
) -> Summary:
    return Summary(
        campaign=campaign,
        end=end,
        exit_code=exit_code(end, now),
        people=now.people,
        sent=now.sent,
        failed=now.failed,
        waiting=now.waiting,
        uncertain=now.uncertain,
        added=intake.added,
        known=intake.known,
        rejected=intake.rejected,
        rejected_file=str(rejected_file) if rejected_file else None,
        ended_here=ended_here,
        seconds=round(seconds, 3),
        rate=round(ended_here / seconds, 1) if seconds > 0 else 0.0,
        trouble=trouble,
        next_due_s=now.next_due_s,
        reasons=reasons,
    )


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
