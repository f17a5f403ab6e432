"""The legal steps of one SMTP conversation, as a table: the only place that knows them."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class State(StrEnum):
    """Where a conversation stands, seen from the client."""

    GREETING = "greeting"
    HELLO = "hello"
    STARTTLS = "starttls"
    HANDSHAKE = "handshake"
    AUTH = "auth"
    READY = "ready"
    ENVELOPE = "envelope"
    CONTENT = "content"
    BODY = "body"
    QUIT = "quit"
    CLOSED = "closed"


class Step(StrEnum):
    """What the client does, or what befalls it."""

    SEND_HELLO = "send EHLO or HELO"
    SEND_STARTTLS = "send STARTTLS"
    AGREE_ON_TLS = "220 to STARTTLS"
    SEND_AUTH = "send AUTH or a response"
    BE_READY = "the session is set up"
    SEND_ENVELOPE = "send MAIL, RCPT or DATA"
    SEND_CONTENT = "send content, but not its end"
    SEND_END = "send the end of the content"
    SETTLE = "every recipient has an answer"
    SEND_QUIT = "send QUIT"
    LOSE = "the connection is gone"


STEPS: Final[Mapping[State, Mapping[Step, State]]] = MappingProxyType(
    {
        State.GREETING: {Step.SEND_HELLO: State.HELLO, Step.LOSE: State.CLOSED},
        State.HELLO: {
            Step.SEND_HELLO: State.HELLO,
            Step.SEND_STARTTLS: State.STARTTLS,
            Step.SEND_AUTH: State.AUTH,
            Step.BE_READY: State.READY,
            Step.LOSE: State.CLOSED,
        },
        # A server may refuse STARTTLS; an opportunistic client then goes on in the clear.
        State.STARTTLS: {
            Step.AGREE_ON_TLS: State.HANDSHAKE,
            Step.SEND_AUTH: State.AUTH,
            Step.BE_READY: State.READY,
            Step.LOSE: State.CLOSED,
        },
        # RFC 3207 section 4.2: what was learned before TLS is forgotten, so EHLO comes again.
        State.HANDSHAKE: {Step.SEND_HELLO: State.HELLO, Step.LOSE: State.CLOSED},
        State.AUTH: {
            Step.SEND_AUTH: State.AUTH,
            Step.BE_READY: State.READY,
            Step.LOSE: State.CLOSED,
        },
        State.READY: {
            Step.SEND_ENVELOPE: State.ENVELOPE,
            Step.SEND_QUIT: State.QUIT,
            Step.LOSE: State.CLOSED,
        },
        State.ENVELOPE: {
            Step.SEND_ENVELOPE: State.ENVELOPE,
            Step.SEND_CONTENT: State.CONTENT,
            Step.SEND_END: State.BODY,
            Step.SETTLE: State.READY,
            Step.LOSE: State.CLOSED,
        },
        State.CONTENT: {
            Step.SEND_CONTENT: State.CONTENT,
            Step.SEND_END: State.BODY,
            Step.LOSE: State.CLOSED,
        },
        State.BODY: {Step.SETTLE: State.READY, Step.LOSE: State.CLOSED},
        State.QUIT: {Step.LOSE: State.CLOSED},
        State.CLOSED: {Step.LOSE: State.CLOSED},
    }
)


_STEPS: Final = {state: dict(steps) for state, steps in STEPS.items()}  # half the look-up's cost


class IllegalStepError(RuntimeError):
    """A step that the table does not have: a defect of this package, never the server's doing."""

    def __init__(self, state: State, step: Step) -> None:
        super().__init__(f"SMTP: cannot {step} in state {state}")
        self.state = state
        self.step = step


class Machine:
    """The state of one conversation. It changes by `take` and in no other way."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = State.GREETING

    def take(self, step: Step) -> None:
        """Takes a step.

        Raises:
            IllegalStepError: The table has no such step; the state stays as it was.
        """
        try:
            self.state = _STEPS[self.state][step]
        except KeyError:
            raise IllegalStepError(self.state, step) from None
