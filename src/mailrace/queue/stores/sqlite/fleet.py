"""Where the processes on one SQLite file hear of each other."""

from collections.abc import Sequence

import msgspec

from mailrace.queue.commands import Action, Answer, Command, NewCommand
from mailrace.queue.stores.sqlite.base import Base
from mailrace.queue.stores.sqlite.database import one, run


class Fleet(Base):
    async def command(self, command: NewCommand) -> int:
        return await self._write(self._command, command)

    def _command(self, command: NewCommand) -> int:
        now_ms = self._now_ms()
        command_id: int = one(
            self._connection, "command_add",
            action=command.action.value, target=command.target, argument=command.argument,
            now_ms=now_ms, expires_ms=now_ms + int(command.expires_in_s * 1000),
        )  # fmt: skip
        return command_id

    async def commands(self, targets: Sequence[str], after_id: int) -> list[Command]:
        rows = await self._rows(
            "commands",
            targets=msgspec.json.encode(targets).decode(),
            after_id=after_id,
            now_ms=self._now_ms(),
        )
        return [
            Command(
                id=row[0],
                action=Action(row[1]),
                target=row[2],
                argument=row[3],
                created_ms=row[4],
                expires_ms=row[5],
            )
            for row in rows
        ]

    async def answer(self, answer: Answer) -> None:
        await self._write(self._answer, answer)

    def _answer(self, answer: Answer) -> None:
        run(
            self._connection, "answer_put",
            command_id=answer.command_id, by=answer.by, done=answer.done, text=answer.text,
            now_ms=self._now_ms(),
        )  # fmt: skip

    async def answers(self, command_id: int) -> list[Answer]:
        return [
            Answer(command_id=row[0], by=row[1], done=bool(row[2]), text=row[3], at_ms=row[4])
            for row in await self._rows("answers", command_id=command_id)
        ]

    async def take_turn(self, name: str, every_s: float) -> bool:
        return await self._write(self._take_turn, name, every_s)

    def _take_turn(self, name: str, every_s: float) -> bool:
        every_ms = int(every_s * 1000)
        taken = run(
            self._connection, "turn_take", name=name, now_ms=self._now_ms(), every_ms=every_ms
        )
        return taken == 1

    async def note(self, name: str, value: bytes | None) -> None:
        if value is None:
            await self._write(run, self._connection, "note_delete", name=name)
        else:
            await self._write(run, self._connection, "note_put", name=name, value=value.decode())

    async def notes(self, prefix: str) -> dict[str, bytes]:
        rows = await self._rows("notes", prefix=prefix)
        return {name: value.encode() for name, value in rows}
