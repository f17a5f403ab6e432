"""What a far side's answer means for the message: sent, again later, never, or nobody knows."""

from mailrace.mail.message import Answer, Reply, Stage
from mailrace.queue import Result, Step

# 5xx that are temporary all the same: (stage or None for any, code, enhanced code or None).
_TEMPORARY = (
    # "Too many recipients" of older servers, where it does not say that a mailbox is full
    # (RFC 5321 section 4.5.3.1.10).
    (Stage.RCPT, 552, ""),
    # Gmail's "receiving mail at a rate that prevents additional messages" (read 2026-11).
    (None, 550, "5.2.1"),
)


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
    return any(
        (at is None or at is stage) and code == reply.code and enhanced == reply.enhanced
        for at, code, enhanced in _TEMPORARY
    )


def _reason(answer: Answer) -> str:
    """What failures are grouped by: `550 5.1.1`; the text often has the address in it."""
    assert answer.reply is not None
    return f"{answer.reply.code} {answer.reply.enhanced}".rstrip()
