import pytest

from mailrace.mail.classification import judge
from mailrace.mail.message import Answer, Reply, Stage
from mailrace.queue import Result, Step

RATE = (
    "The user you are trying to contact is receiving mail at a rate that prevents additional "
    "messages from being delivered."
)


@pytest.mark.parametrize(
    ("stage", "code", "enhanced", "text", "step"),
    [
        (Stage.BODY, 250, "2.0.0", "taken", Step.COMPLETE),
        (Stage.BODY, 250, "", "ok", Step.COMPLETE),
        (Stage.RCPT, 251, "2.1.5", "will forward", Step.COMPLETE),
        (Stage.RCPT, 450, "4.2.0", "greylisted", Step.RETRY),
        (Stage.MAIL, 421, "4.7.0", "deferred", Step.RETRY),
        (Stage.BODY, 452, "4.2.2", "mailbox full", Step.RETRY),
        (Stage.RCPT, 550, "5.1.1", "no such user", Step.FAIL),
        (Stage.MAIL, 550, "5.7.1", "not you", Step.FAIL),
        (Stage.DATA, 554, "", "no", Step.FAIL),
        (Stage.RCPT, 550, "5.2.1", RATE, Step.RETRY),
        (Stage.BODY, 550, "5.2.1", RATE.upper(), Step.RETRY),
        (Stage.RCPT, 550, "5.2.1", "mailbox disabled", Step.FAIL),
        (Stage.RCPT, 550, "5.7.1", RATE, Step.FAIL),
        (Stage.RCPT, 552, "", "too many recipients", Step.RETRY),
        (Stage.RCPT, 552, "", "", Step.RETRY),
        (Stage.RCPT, 552, "", "Mailbox full", Step.FAIL),
        (Stage.RCPT, 552, "", "user is over quota", Step.FAIL),
        (Stage.RCPT, 552, "", "exceeded storage allocation", Step.FAIL),
        (Stage.RCPT, 552, "", "message too large", Step.FAIL),
        (Stage.RCPT, 552, "5.2.2", "over quota", Step.FAIL),
        (Stage.BODY, 552, "", "too much", Step.FAIL),
        (Stage.COMPOSE, 0, "", "no such column", Step.FAIL),
    ],
)
def test_what_a_reply_means(stage: Stage, code: int, enhanced: str, text: str, step: Step) -> None:
    result = judge(Answer(stage, Reply(code, enhanced, text)))
    assert result.step is step
    assert result.reason == f"{code} {enhanced}".strip()
    assert result.detail == text


def test_no_reply_leaves_the_fate_unknown() -> None:
    result = judge(Answer(Stage.BODY, None))
    assert result == Result(
        Step.LOSE, "no reply", "handed over, and the connection ended without a reply"
    )
