"""`--dry-run`: what was found, without storing or sending."""

import msgspec

from mailrace.mail.sending import Checked
from mailrace.queue.words import counted


class RejectedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that cannot be sent to."""

    line: int
    reason: str


class Rehearsal(msgspec.Struct, frozen=True, kw_only=True):
    """What `--dry-run --json` prints.

    Attributes:
        rows: Rows that can be sent to; the same address twice counts twice.
        rejected: Rows that cannot.
        first_rejected: The first few of these.
        tried: For how many people the message was written.
    """

    campaign: str
    source: str
    rows: int
    rejected: int
    first_rejected: list[RejectedRow]
    tried: int


def rehearsal(checked: Checked) -> Rehearsal:
    found = checked.survey
    return Rehearsal(
        campaign=checked.campaign.name,
        source=checked.people.name,
        rows=found.good,
        rejected=found.rejected,
        first_rejected=[RejectedRow(line=row.line, reason=row.reason) for row in checked.rejected],
        tried=min(found.good, 1 + len(found.sample)),
    )


def rehearsal_lines(found: Rehearsal) -> list[str]:
    lines = [f"{found.source}: {counted(found.rows, 'row')} can be sent to"]
    if found.rejected:
        lines.append(f"  {counted(found.rejected, 'row')} cannot:")
        lines += [f"    line {row.line}: {row.reason}" for row in found.first_rejected]
        if found.rejected > len(found.first_rejected):
            lines.append("    …")
    lines.append(f"  the message was written for {found.tried:,} of them, taken at random")
    lines.append("  nothing was stored or sent")
    return lines
