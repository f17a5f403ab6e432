"""One message on a ready session, without I/O: which commands go together, what replies mean."""

from enum import Enum, auto
from typing import Final

from mailrace.mail.message import Answer, Message, Reply, Stage
from mailrace.mail.providers.smtp.replies import GarbledError, to_reply
from mailrace.mail.providers.smtp.states import Machine, Step


class Form(Enum):
    """How the commands of a message are grouped.

    STEPS: one at a time, for servers without PIPELINING. GROUPED: MAIL and RCPT, with DATA unless
    content goes by BDAT, in one write, content in the next. AT_ONCE: everything in one write.
    """

    STEPS = auto()
    GROUPED = auto()
    AT_ONCE = auto()


class Move(Enum):
    """What the shell does after a reply.

    WAIT: for the next reply. SEND: write `commands()`. CONTENT: write `head` and the content, after
    passing the gate. DONE: `answers()` are there and the session is ready. CLOSE: they are there
    and the connection is to be closed. LOST: the server closes a connection that had waited.
    """

    WAIT = auto()
    SEND = auto()
    CONTENT = auto()
    DONE = auto()
    CLOSE = auto()
    LOST = auto()


_RSET: Final = "rset"
_DOT: Final = "dot"
# An enum's member costs 0.1 µs to look up in Python 3.11, five times as much as a global; a
# message does it some forty times (the SMTP benchmark).
_MAIL, _RCPT, _DATA, _BODY = Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.BODY
_SEND_ENVELOPE, _SEND_END, _SETTLE = Step.SEND_ENVELOPE, Step.SEND_END, Step.SETTLE
_WAIT, _DONE = Move.WAIT, Move.DONE
_STEPS = Form.STEPS


class Transaction:
    """The bookkeeping of one message.

    Attributes:
        refusal: The 421 behind `Move.LOST`.
        taken: Whether the far side said 2xx to the content.
        dirty: Whether RSET has to come before the next message.
    """

    __slots__ = (
        "_awaited",
        "_commands",
        "_count",
        "_ended",
        "_kept",
        "_machine",
        "_mail",
        "_next",
        "_open",
        "_sent",
        "_total",
        "_uploading",
        "_verdicts",
        "dirty",
        "head",
        "refusal",
        "taken",
    )

    def __init__(
        self,
        message: Message,
        parameters: str,
        machine: Machine,
        *,
        form: Form,
        chunked: bool,
        reset: bool,
        kept: bool,
    ) -> None:
        """Prepares the commands.

        Args:
            reset: Puts RSET in front, pipelined where the form allows it.
            kept: Whether a 421 to MAIL may be a good-bye that was on its way before.
        """
        recipients = message.recipients
        self._machine = machine
        self._kept = kept
        self._count = len(recipients)
        self._mail: Answer | None = None  # a refused MAIL answers for everybody
        self._verdicts: list[Answer | None] = []  # one a RCPT reply; None where it was accepted
        self._open = 0  # recipients accepted and not yet settled
        self._next = 0  # index of the awaited reply
        self._uploading = False  # content is on its way, its end is not
        self._ended = False  # the end of the content is out, nobody can take it back
        self.dirty = True
        self.taken = False
        self.refusal: Reply | None = None
        self.head = b"BDAT %d LAST\r\n" % len(message.content) if chunked else b""
        commands = [f"MAIL FROM:<{message.sender}>{parameters}\r\n"]
        awaited: list[Stage | str] = [_MAIL]
        for recipient in recipients:
            commands.append(f"RCPT TO:<{recipient}>\r\n")
            awaited.append(_RCPT)
        if reset:
            commands.insert(0, "RSET\r\n")
            awaited.insert(0, _RSET)
        if not chunked:
            commands.append("DATA\r\n")
            awaited.append(_DATA)
        self._commands = commands
        self._awaited = awaited
        self._total = len(commands)
        self._sent = 0 if form is _STEPS else self._total

    @property
    def stage(self) -> Stage:
        """The step whose reply is awaited."""
        awaited = self._awaited
        found = awaited[self._next] if self._next < len(awaited) else _BODY
        return found if isinstance(found, Stage) else _MAIL

    def commands(self) -> bytes:
        """What `Move.SEND`, or the beginning, asks to be written."""
        self._machine.take(_SEND_ENVELOPE)
        if self._awaited[-1] is _DOT:
            return b".\r\n"
        if self._next == 0 and self._sent:
            return "".join(self._commands).encode()
        self._sent += 1
        return self._commands[self._sent - 1].encode()

    def begin_content(self) -> None:
        """Part of the content, but not its end, is about to be written."""
        self._machine.take(Step.SEND_CONTENT)
        self._uploading = True

    def end_content(self) -> None:
        """The end of the content is about to be written; from here on loss is uncertainty."""
        self._machine.take(_SEND_END)
        self._uploading = False
        self._awaited.append(_BODY)
        self._ended = True

    def receive(self, code: int, text: bytes) -> Move:
        """Takes the next reply.

        Raises:
            GarbledError: A reply that makes no sense where it stands.
        """
        if self._uploading:
            return self._interrupted(code, text)
        kind = self._awaited[self._next]
        if code == 421:
            return self._closing(kind, code, text)
        self._next += 1
        if kind is _RCPT and code < 300:
            self._open += 1
            self._verdicts.append(None)
        elif kind is _DATA:
            return self._on_data(code, text)
        elif kind is not _MAIL or code >= 300:
            self._note(kind, code, text)
        if self._next < len(self._awaited) and self._sent == self._total:
            return _WAIT
        return self._on_end_of_group()

    def answers(self) -> tuple[Answer, ...]:
        """One answer a recipient; only once every one of them is settled."""
        found = self._settled()
        assert found is not None
        return found

    def lost(self) -> tuple[Answer, ...] | None:
        """The connection is gone: what is known of the message.

        Returns:
            The answers if they were all there, or if the content was out, then `None` as reply for
            whoever had none; or `None`: the far side has not got the message.
        """
        found = self._settled()
        if found is not None or not self._ended:
            return found
        self._fill(Answer(_BODY, None))
        return self._settled()

    def _settled(self) -> tuple[Answer, ...] | None:
        if self._mail is not None:
            return (self._mail,) * self._count
        if self._open or len(self._verdicts) < self._count:
            return None
        return tuple(each for each in self._verdicts if each is not None)

    def _settle(self, answer: Answer) -> None:
        if self._open == len(self._verdicts):  # nobody was refused
            self._verdicts = [answer] * self._open
        else:
            self._verdicts = [each or answer for each in self._verdicts]
        self._open = 0

    def _fill(self, answer: Answer) -> None:
        """Settles the accepted recipients and those whose RCPT got no reply."""
        self._verdicts += [None] * (self._count - len(self._verdicts))
        self._settle(answer)

    def _note(self, kind: Stage | str, code: int, text: bytes) -> None:
        """Everything but the common MAIL and RCPT that were accepted."""
        good = code < 300
        if not good and code < 400:
            raise GarbledError(f"{code} in answer to {kind}")
        if kind is _RCPT:
            self._verdicts.append(Answer(_RCPT, to_reply(code, text)))
        elif kind is _BODY:
            self.taken = good
            self.dirty = not good
            if self._open:
                self._settle(Answer(_BODY, to_reply(code, text)))
        elif kind is _MAIL:
            self._mail = Answer(_MAIL, to_reply(code, text))
            self.dirty = False
        elif kind is _DOT:
            self.dirty = False

    def _on_data(self, code: int, text: bytes) -> Move:
        if code < 300:
            raise GarbledError(f"{code} in answer to DATA")
        if code >= 400:
            if self._open:
                self._settle(Answer(_DATA, to_reply(code, text)))
            return self._done()
        if self._open:
            # A server that refused MAIL and goes on is not one to send an empty message to.
            return Move.CONTENT if self._mail is None else Move.CLOSE
        # RFC 2920 section 3.1: DATA was accepted with nobody to deliver to, so end it empty.
        self._awaited.append(_DOT)
        return Move.SEND

    def _on_end_of_group(self) -> Move:
        if self._sent < self._total:
            refused = self._mail is not None or self._settled() is not None
            return self._done() if refused else Move.SEND
        if self._ended or not self._open or self._mail is not None:
            return self._done()
        return Move.CONTENT

    def _done(self) -> Move:
        self._machine.take(_SETTLE)
        return _DONE

    def _closing(self, kind: Stage | str, code: int, text: bytes) -> Move:
        """421 at any moment (RFC 5321 section 3.8): the server takes nothing more.

        It works through a group in order, so what stands behind the 421 was not done either. Only
        what a server says that has had enough of waiting is not about this message: any other may
        come again each time, such as a deferral of its recipient.
        """
        reply = to_reply(code, text)
        if self._settled() is not None:
            return Move.CLOSE
        if not self._ended and (kind is _RSET or (kind is _MAIL and self._kept)):
            self.refusal = reply
            return Move.LOST
        self._fill(Answer(kind if isinstance(kind, Stage) else _MAIL, reply))
        return Move.CLOSE

    def _interrupted(self, code: int, text: bytes) -> Move:
        """A reply while content is still on its way: a refusal, for the server cannot have it."""
        if code < 400:
            raise GarbledError(f"{code} before the end of the content")
        self._settle(Answer(_BODY, to_reply(code, text)))
        return Move.CLOSE
