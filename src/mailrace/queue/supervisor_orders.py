"""Carrying out what a supervisor is told over the store."""

from collections.abc import Callable
from typing import Final, Protocol

from mailrace.errors import MisuseError
from mailrace.queue.commands import Action, Answer, Command
from mailrace.queue.inbox import Inbox
from mailrace.queue.store import Fleet
from mailrace.queue.words import counted

_BY_ITSELF: Final = frozenset({Action.PAUSE, Action.RESUME, Action.RESET_BREAKERS})
"""What every process does, and a supervisor has no answer to."""


class Supervising(Protocol):
    """What can be told to a supervisor."""

    @property
    def name(self) -> str: ...

    @property
    def host(self) -> str: ...

    @property
    def processes(self) -> int: ...

    @property
    def state(self) -> str: ...

    def stop(self) -> None: ...

    def drain(self) -> None: ...

    def restart(self) -> int: ...

    def scale(self, processes: int) -> None: ...


class SupervisorOrders:
    """Looks for commands to one supervisor, does them, and answers with what happened."""

    def __init__(self, store: Fleet, supervisor: Supervising) -> None:
        self._store = store
        self._supervisor = supervisor
        self._inbox = Inbox(store)

    async def turn(self) -> bool:
        """Does what there is to do; returns whether there was anything."""
        name, host = self._supervisor.name, self._supervisor.host
        done = False
        for command in await self._inbox.new(["all", f"node:{host}", f"supervisor:{name}"]):
            self._inbox.mark(command)
            if command.action not in _BY_ITSELF:
                await self._carry_out(command)
                done = True
        return done

    async def _carry_out(self, command: Command) -> None:
        done, text, then = self._do(command)
        by = f"supervisor:{self._supervisor.name}"
        try:
            await self._store.answer(Answer(command_id=command.id, by=by, done=done, text=text))
        finally:
            then()  # an end comes after its answer, and whether or not that got through

    def _do(self, command: Command) -> tuple[bool, str, Callable[[], object]]:
        """Whether it is done, what happened, and what is to follow the answer."""
        supervisor, action = self._supervisor, command.action
        if action is Action.STOP:
            return True, f"{_counted(supervisor.processes)} told to stop", supervisor.stop
        if action is Action.DRAIN:
            return True, f"{_counted(supervisor.processes)} told to drain", supervisor.drain
        if supervisor.state == "draining":
            return False, "it is draining, and starts nothing any more", _nothing
        if action is Action.RESTART:
            restarted = _counted(supervisor.restart())
            return True, f"{restarted} restarted one after the other", _nothing
        before = supervisor.processes
        try:
            supervisor.scale(_wanted(command, before))
        except MisuseError as error:
            return False, str(error), _nothing
        return True, f"{_counted(supervisor.processes)}, {_counted(before)} before", _nothing


def _wanted(command: Command, before: int) -> int:
    """How many processes there are to be after a `start` or `scale`."""
    number = command.argument
    if command.action is Action.SCALE:
        if number is None:
            raise MisuseError("it was not said how many", hint="give a number")
        return number
    more = 1 if number is None else number
    if more < 1:
        raise MisuseError(f"{more} more processes cannot be started", hint="give 1 or more")
    return before + more


def _counted(processes: int) -> str:
    return counted(processes, "process", "processes")


def _nothing() -> None:
    pass
