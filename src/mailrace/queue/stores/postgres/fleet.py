"""Where processes hear of each other, on PostgreSQL."""

from collections.abc import Sequence

import msgspec

from mailrace.queue.commands import Answer, Command, NewCommand
from mailrace.queue.stores.postgres.parts import Part, structs


class Fleet(Part):
    """Orders and answers, turns and notes."""

    async def command(self, command: NewCommand) -> int:
        async with self.desk.transaction() as transaction:
            await transaction.run("commands_lock")
            number: int = await transaction.one("command_add", **msgspec.structs.asdict(command))
        return number

    async def commands(self, targets: Sequence[str], after_id: int) -> list[Command]:
        rows = await self.desk.rows("commands", targets=list(targets), after_id=after_id)
        return structs(Command, rows)

    async def answer(self, answer: Answer) -> None:
        await self.desk.run("answer_put", **msgspec.structs.asdict(answer))

    async def answers(self, command_id: int) -> list[Answer]:
        return structs(Answer, await self.desk.rows("answers", command_id=command_id))

    async def take_turn(self, name: str, every_s: float) -> bool:
        return await self.desk.run("turn_take", name=name, every_s=every_s) > 0

    async def note(self, name: str, value: bytes | None) -> None:
        if value is None:
            await self.desk.run("note_delete", name=name)
        else:
            await self.desk.run("note_put", name=name, value=value.decode())

    async def notes(self, prefix: str) -> dict[str, bytes]:
        return dict(await self.desk.rows("notes", prefix=prefix))
