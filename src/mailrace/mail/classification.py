"""What a far side's answer means for the message: sent, again later, never, or nobody knows."""

import re
from typing import Final

from mailrace.mail.message import Answer, Reply, Stage
from mailrace.queue import Result, Step

# Gmail's "receiving mail at a rate that prevents additional messages" (read 2026-11); from others
# 5.2.1 is a mailbox that is disabled (RFC 3463).
_OVER_RATE: Final = "rate that prevents"

# What a 552 says where it is not the "too many recipients" of older servers (RFC 5321 section
# 4.5.3.1.10).
_NO_ROOM: Final = re.compile(r"mailbox|quota|storage|\bfull\b|size|large", re.IGNORECASE)


def judge(answer: Answer) -> Result:
    """The result of an attempt that got this answer."""
    if answer.reply is None:
        return Result(
            Step.LOSE, "no reply", "handed over, and the connection ended without a reply"
        )
    return Result(_step(answer.stage, answer.reply), _reason(answer), answer.reply.text)


def _step(stage: Stage, reply: Reply) -> Step:
    if 200 <= reply.code < 300:
        return Step.COMPLETE
    if 400 <= reply.code < 500 or _is_temporary(stage, reply):
        return Step.RETRY
    return Step.FAIL


def _is_temporary(stage: Stage, reply: Reply) -> bool:
    """Whether a 5xx is for later all the same."""
    match reply.code, reply.enhanced:
        case 550, "5.2.1":
            return _OVER_RATE in reply.text.lower()
        case 552, "":
            return stage is Stage.RCPT and _NO_ROOM.search(reply.text) is None
        case _:
            return False


def _reason(answer: Answer) -> str:
    """What failures are grouped by: `550 5.1.1`; the text often has the address in it."""
    assert answer.reply is not None
    return f"{answer.reply.code} {answer.reply.enhanced}".rstrip()
