"""What somebody has to do now and then, on PostgreSQL."""

from typing import Final

from mailrace.errors import ConflictError, MisuseError
from mailrace.queue.batches import read_completion
from mailrace.queue.states import JobState
from mailrace.queue.stores.postgres import gates, partitions
from mailrace.queue.stores.postgres.parts import Part

# A hundred years: what is kept longer is kept for ever, and the server's calendar ends somewhere.
_FOREVER_S: Final = 100 * 365 * 86_400.0
_FOLD_ROWS: Final = 20_000
_FOLD_ROUNDS: Final = 50
_ROWS: Final = 10_000
_FORGETTING: Final = (
    "pace_merge", "pace_forget", "keys_forget", "slots_forget", "commands_forget", "limits_forget",
)  # fmt: skip


class Upkeep(Part):
    """Bounded, safe to repeat, and safe where two processes do it at the same time."""

    async def complete_batches(self) -> int:
        made = 0
        wrong: MisuseError | None = None
        refused: ConflictError | None = None
        for batch_id, name, completion in await self.desk.rows("batches_final"):
            try:
                read_completion(name, completion)
                made += await self.desk.one("batch_complete", batch_id=batch_id) or 0
            except ConflictError as error:  # one that cannot be made must not hold up the others
                refused = refused or error
            except MisuseError as error:
                wrong = wrong or error
        trouble = wrong or refused
        if trouble is not None:
            raise trouble
        return made

    async def expire(self, *, limit: int = 1000) -> int:
        count: int = await self.desk.one("expire", limit=limit)
        return count

    async def retain(self, keep_s: dict[JobState, float], *, limit: int = 5000) -> int:
        removed = 0
        for state, state_s in keep_s.items():
            if state_s > _FOREVER_S:
                continue
            if state is JobState.COMPLETED:
                removed += await partitions.drop_days(self.desk, state_s)
                removed += await self.desk.one("retain_completed", keep_s=state_s, limit=limit)
            else:
                removed += await self.desk.one(
                    "retain_ended", state=state, keep_s=state_s, limit=limit
                )
        return removed

    async def tidy(self) -> None:
        await self._fold()
        await partitions.add_days(self.desk)
        for name in _FORGETTING:
            await self.desk.run(name, limit=_ROWS)
        await self._mend_gates()

    async def _fold(self) -> None:
        for _ in range(_FOLD_ROUNDS):
            if await self.desk.one("tallies_fold", limit=_FOLD_ROWS) < _FOLD_ROWS:
                return

    async def _mend_gates(self) -> None:
        for (queue,) in await self.desk.rows("gates_wrong"):
            async with self.desk.transaction() as transaction:
                await gates.mend(transaction, queue)
        await self.desk.run("unblock", queue=None)
