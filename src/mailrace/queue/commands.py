"""Orders to processes, given and answered over the store."""

from enum import StrEnum

import msgspec


class Action(StrEnum):
    """What a process or a supervisor can be told."""

    PAUSE = "pause"
    RESUME = "resume"
    DRAIN = "drain"
    STOP = "stop"
    RESTART = "restart"
    SCALE = "scale"
    START = "start"
    RESET_BREAKERS = "reset-breakers"


class NewCommand(msgspec.Struct, frozen=True, kw_only=True):
    """An order.

    Attributes:
        target: `all`, `node:NAME` (a host), `process:ID` or `supervisor:NAME`.
        argument: For `scale` and `start`: how many processes.
        expires_in_s: After that nobody carries it out any more.
    """

    action: Action
    target: str = "all"
    argument: int | None = None
    expires_in_s: float = 300.0


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """An order as the store keeps it."""

    id: int
    action: Action
    target: str
    argument: int | None
    created_ms: int
    expires_ms: int


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What one of those addressed did about a command.

    Attributes:
        by: `process:ID` or `supervisor:NAME`.
        done: Whether it did it.
        text: What happened, one line.
    """

    command_id: int
    by: str
    done: bool
    text: str
    at_ms: int = 0
