"""One message against random servers, next to a model that knows only the rules."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrace.mail.message import Answer, Reply, Stage
from mailrace.mail.providers.smtp.replies import GarbledError
from mailrace.mail.providers.smtp.states import Machine, State
from mailrace.mail.providers.smtp.transaction import Form, Move, Transaction
from tests.support.smtp_values import CONTENT, message

OK, GO, NO, LATER, BYE = 250, 354, 550, 450, 421


def _transaction(
    count: int = 1,
    *,
    form: Form = Form.GROUPED,
    chunked: bool = False,
    reset: bool = False,
    kept: bool = False,
) -> Transaction:
    machine = Machine()
    machine.state = State.READY
    mail = message(*(f"r{number}@example.net" for number in range(count)))
    return Transaction(mail, " SIZE=9", machine, form=form, chunked=chunked, reset=reset, kept=kept)


def _replies(transaction: Transaction, *codes: int) -> Move:
    move = Move.WAIT
    for code in codes:
        move = transaction.receive(code, b"")
    return move


def _codes(answers: tuple[Answer, ...] | None) -> list[tuple[Stage, int | None]]:
    assert answers is not None
    return [(each.stage, each.reply.code if each.reply else None) for each in answers]


def test_pipelined_with_data() -> None:
    transaction = _transaction(2, reset=True)
    assert transaction.commands() == (
        b"RSET\r\nMAIL FROM:<ann@example.com> SIZE=9\r\n"
        b"RCPT TO:<r0@example.net>\r\nRCPT TO:<r1@example.net>\r\nDATA\r\n"
    )
    assert _replies(transaction, OK, OK, OK, NO, GO) is Move.CONTENT
    transaction.end_content()
    assert _replies(transaction, OK) is Move.DONE
    assert _codes(transaction.answers()) == [(Stage.BODY, OK), (Stage.RCPT, NO)]
    assert transaction.taken
    assert not transaction.dirty


def test_pipelined_with_bdat() -> None:
    transaction = _transaction(chunked=True)
    assert transaction.commands().endswith(b"RCPT TO:<r0@example.net>\r\n")
    assert _replies(transaction, OK, OK) is Move.CONTENT
    assert transaction.head == b"BDAT %d LAST\r\n" % len(CONTENT)
    transaction.end_content()
    assert _replies(transaction, NO) is Move.DONE
    assert transaction.dirty


def test_a_step_at_a_time() -> None:
    transaction = _transaction(2, form=Form.STEPS, reset=True)
    seen = [transaction.commands()]
    for code in (OK, OK, NO, OK):
        assert transaction.receive(code, b"") is Move.SEND
        seen.append(transaction.commands())
    assert [line.split()[0] for line in seen] == [b"RSET", b"MAIL", b"RCPT", b"RCPT", b"DATA"]
    assert transaction.receive(GO, b"") is Move.CONTENT


def test_a_step_at_a_time_stops_at_a_refusal() -> None:
    transaction = _transaction(2, form=Form.STEPS)
    transaction.commands()
    assert transaction.receive(LATER, b"") is Move.DONE
    assert _codes(transaction.answers()) == [(Stage.MAIL, LATER)] * 2
    assert not transaction.dirty

    transaction = _transaction(1, form=Form.STEPS)
    transaction.commands()
    transaction.receive(OK, b"")
    transaction.commands()
    assert transaction.receive(NO, b"") is Move.DONE
    assert transaction.dirty


def test_everyone_refused_but_data_accepted_ends_with_a_lone_dot() -> None:
    transaction = _transaction(2)
    transaction.commands()
    assert _replies(transaction, OK, NO, LATER, GO) is Move.SEND
    assert transaction.commands() == b".\r\n"
    assert _replies(transaction, NO) is Move.DONE
    assert _codes(transaction.answers()) == [(Stage.RCPT, NO), (Stage.RCPT, LATER)]
    assert not transaction.dirty


def test_a_server_that_goes_on_after_refusing_mail_gets_no_empty_message() -> None:
    transaction = _transaction()
    transaction.commands()
    assert _replies(transaction, NO, OK, GO) is Move.CLOSE
    assert _codes(transaction.answers()) == [(Stage.MAIL, NO)]


def test_data_refused() -> None:
    transaction = _transaction(2)
    transaction.commands()
    assert _replies(transaction, OK, NO, OK, LATER) is Move.DONE
    assert _codes(transaction.answers()) == [(Stage.RCPT, NO), (Stage.DATA, LATER)]
    assert transaction.dirty


@pytest.mark.parametrize(
    "codes", [(GO,), (OK, GO), (OK, OK, OK)], ids=["354 to MAIL", "354 to RCPT", "250 to DATA"]
)
def test_a_reply_that_makes_no_sense(codes: tuple[int, ...]) -> None:
    transaction = _transaction()
    transaction.commands()
    _replies(transaction, *codes[:-1])
    with pytest.raises(GarbledError):
        transaction.receive(codes[-1], b"")
    assert transaction.lost() is None


def test_421_to_a_recipient_is_the_answer_of_all_who_were_not_refused() -> None:
    transaction = _transaction(4)
    transaction.commands()
    assert _replies(transaction, OK, OK, NO, BYE) is Move.CLOSE
    assert _codes(transaction.answers()) == [
        (Stage.RCPT, BYE),
        (Stage.RCPT, NO),
        (Stage.RCPT, BYE),
        (Stage.RCPT, BYE),
    ]


def test_421_to_data_is_the_answer_of_the_accepted() -> None:
    transaction = _transaction(2)
    transaction.commands()
    assert _replies(transaction, OK, OK, NO, BYE) is Move.CLOSE
    assert _codes(transaction.answers()) == [(Stage.DATA, BYE), (Stage.RCPT, NO)]


def test_421_to_mail_is_an_answer_unless_the_connection_had_waited() -> None:
    transaction = _transaction(2)
    transaction.commands()
    assert _replies(transaction, BYE) is Move.CLOSE
    assert _codes(transaction.answers()) == [(Stage.MAIL, BYE)] * 2
    for codes in (BYE,), (OK, BYE):
        transaction = _transaction(2, kept=True, reset=len(codes) == 2)
        transaction.commands()
        assert _replies(transaction, *codes) is Move.LOST
        assert transaction.lost() is None


def test_a_refusal_in_the_middle_of_the_content() -> None:
    transaction = _transaction(2)
    transaction.commands()
    _replies(transaction, OK, OK, NO, GO)
    transaction.begin_content()
    assert transaction.receive(552, b"5.3.4 enough") is Move.CLOSE
    assert transaction.answers() == (
        Answer(Stage.BODY, Reply(552, "5.3.4", "enough")),
        Answer(Stage.RCPT, Reply(550, "", "")),
    )


def test_an_acceptance_in_the_middle_of_the_content_is_a_lie() -> None:
    transaction = _transaction()
    transaction.commands()
    _replies(transaction, OK, OK, GO)
    transaction.begin_content()
    with pytest.raises(GarbledError):
        transaction.receive(OK, b"")
    assert transaction.lost() is None


@dataclass
class _Run:
    """What a conversation came to."""

    transaction: Transaction
    codes: list[int]
    committed: bool = False
    move: Move = Move.WAIT


_codes_st = st.sampled_from([OK, OK, OK, OK, 251, GO, GO, NO, LATER, BYE])


def _run(
    count: int, form: Form, codes: list[int], *, chunked: bool, reset: bool, kept: bool
) -> _Run:
    """Plays the shell: no step of it may be illegal, whatever the server says."""
    run = _Run(_transaction(count, form=form, chunked=chunked, reset=reset, kept=kept), [])
    run.transaction.commands()
    if form is Form.AT_ONCE:
        run.transaction.end_content()
        run.committed = True
    for code in codes:
        run.codes.append(code)
        run.move = run.transaction.receive(code, b"")
        if run.move is Move.SEND:
            run.transaction.commands()
        elif run.move is Move.CONTENT:
            run.transaction.end_content()
            run.committed = True
        elif run.move is not Move.WAIT:
            break
    return run


def _model(
    count: int, form: Form, codes: list[int], *, chunked: bool, reset: bool, kept: bool
) -> object:
    """The answers by the rules alone, from the replies in order; "lost" where nothing was taken."""
    stages = [Stage.MAIL] * (1 + reset) + [Stage.RCPT] * count
    stages += [Stage.BODY] if chunked else [Stage.DATA, Stage.BODY]
    verdicts: list[Answer | None] = []
    committed = form is Form.AT_ONCE
    for place, (stage, code) in enumerate(zip(stages, codes, strict=False)):
        answer = Answer(stage, Reply(code, "", ""))
        bye = code == BYE and stage is not Stage.BODY
        if bye and not committed and (place < reset or (stage is Stage.MAIL and kept)):
            return "lost"
        if stage is Stage.MAIL and code >= 400 and not bye and place == reset:
            return (answer,) * count
        if stage is Stage.RCPT and not bye:
            verdicts.append(answer if code >= 400 else None)
        if bye or stage is Stage.BODY or (stage is Stage.DATA and code >= 400):
            verdicts += [None] * (count - len(verdicts))
            verdicts = [each or answer for each in verdicts]
        if len(verdicts) == count and all(verdicts):
            return tuple(verdicts)
        committed = committed or stage is Stage.DATA or (chunked and len(verdicts) == count)
    verdicts += [None] * (count - len(verdicts))
    return tuple(each or Answer(Stage.BODY, None) for each in verdicts) if committed else "lost"


_forms = st.sampled_from(
    [
        (Form.STEPS, False),
        (Form.STEPS, True),
        (Form.GROUPED, False),
        (Form.GROUPED, True),
        (Form.AT_ONCE, True),
    ]
)


@given(st.integers(1, 4), _forms, st.booleans(), st.booleans(), st.lists(_codes_st, max_size=12))
def test_bookkeeping_matches_the_model_and_no_step_is_illegal(
    count: int, wire: tuple[Form, bool], reset: bool, kept: bool, codes: list[int]
) -> None:
    form, chunked = wire
    try:
        run = _run(count, form, codes, chunked=chunked, reset=reset, kept=kept)
    except GarbledError:
        return
    if run.move in {Move.DONE, Move.CLOSE}:
        found: object = run.transaction.answers()
    else:
        found = run.transaction.lost() if run.move is not Move.LOST else None
        found = "lost" if found is None else found
    expected = _model(count, form, run.codes, chunked=chunked, reset=reset, kept=kept)
    assert found == expected
    if isinstance(found, tuple):
        assert len(found) == count
        unknown = [each for each in found if each.reply is None]
        assert all(each.stage is Stage.BODY for each in unknown)
        assert run.committed or not unknown
