"""Carrying out what a process is told over the store."""

from typing import Final, Protocol

from mailrace.queue.commands import Action, Answer, Command
from mailrace.queue.inbox import Inbox
from mailrace.queue.processes import ProcessState
from mailrace.queue.store import Fleet

_LEAVES: Final = frozenset({Action.DRAIN, Action.STOP, Action.RESTART})


class Ordered(Protocol):
    """What can be told to a process."""

    @property
    def process_id(self) -> int | None: ...

    @property
    def host(self) -> str: ...

    @property
    def state(self) -> ProcessState: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def drain(self, *, restart: bool = False) -> None: ...

    def reset_breakers(self) -> None: ...


class Orders:
    """Looks for commands to one process, does them, and answers with what happened."""

    def __init__(self, store: Fleet, process: Ordered) -> None:
        self._store = store
        self._process = process
        self._inbox = Inbox(store)

    async def turn(self) -> None:
        for command in await self._inbox.new(self._targets()):
            self._inbox.mark(command)
            if command.action in _LEAVES:  # nobody answers any more once it is on its way
                try:
                    await self._answer(command, done=True, text=f"{ProcessState.DRAINING} now")
                finally:
                    self._do(command)
                continue
            done, text = self._do(command)
            if done is not None:
                await self._answer(command, done=done, text=text)

    def _targets(self) -> list[str]:
        process_id = self._process.process_id
        if process_id is None:
            return []
        return ["all", f"node:{self._process.host}", f"process:{process_id}"]

    async def _answer(self, command: Command, *, done: bool, text: str) -> None:
        by = f"process:{self._process.process_id}"
        await self._store.answer(Answer(command_id=command.id, by=by, done=done, text=text))

    def _do(self, command: Command) -> tuple[bool | None, str]:
        """Whether it was done, and what happened; `None` for what is for a supervisor."""
        match command.action:
            case Action.PAUSE:
                self._process.pause()
            case Action.RESUME:
                self._process.resume()
            case Action.DRAIN | Action.STOP:
                self._process.drain()
            case Action.RESTART:
                self._process.drain(restart=True)
            case Action.RESET_BREAKERS:
                self._process.reset_breakers()
                return True, "breakers reset"
            case Action.SCALE | Action.START:
                return None, ""
        return True, f"{self._process.state} now"
