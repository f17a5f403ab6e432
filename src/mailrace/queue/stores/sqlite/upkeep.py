"""What somebody has to do on the SQLite store now and then."""

from mailrace.errors import ConflictError, MailraceError, MisuseError
from mailrace.queue.batches import read_completion
from mailrace.queue.figures import MINUTE_MS
from mailrace.queue.states import FINAL, JobState
from mailrace.queue.stores.sqlite.adding import add_jobs, check_open
from mailrace.queue.stores.sqlite.base import Base
from mailrace.queue.stores.sqlite.choosing import delete_chosen, end_chosen
from mailrace.queue.stores.sqlite.database import run, statement
from mailrace.queue.stores.sqlite.gates import let_in
from mailrace.queue.stores.sqlite.ledger import PACE_SLICE_MS
from mailrace.queue.stores.sqlite.rules import SLOTS_KEPT_MS

_DAY_MS = 86_400_000
_KEYS_KEPT_MS = 30 * _DAY_MS
_COMMANDS_KEPT_MS = 7 * _DAY_MS
_THROUGHPUT_KEPT_MS = 14 * _DAY_MS
_PACE_SLICES_KEPT = 7
_AT_ONCE = 10_000


class Upkeep(Base):
    async def complete_batches(self) -> int:
        completed, trouble = await self._write(self._complete_batches)
        if completed:
            self._ring()
        if trouble is not None:  # raised after the commit, which keeps what the others came to
            raise trouble
        return completed

    def _complete_batches(self) -> tuple[int, MailraceError | None]:
        """How many were completed, and why the first one was not that could not be."""
        now_ms = self._now_ms()
        wrong: MisuseError | None = None
        refused: ConflictError | None = None
        completed = 0
        for batch_id, name, completion in self._connection.execute(
            statement("batches_done")
        ).fetchall():
            try:
                self._complete_batch(batch_id, name, completion, now_ms)
            except ConflictError as error:  # it waits until its queue takes something in again
                refused = refused or error
            except MisuseError as error:
                wrong = wrong or error
            else:
                completed += 1
        return completed, wrong or (None if completed else refused)

    def _complete_batch(
        self, batch_id: int, name: str, completion: str | None, now_ms: int
    ) -> None:
        job = read_completion(name, completion)
        if job is not None:
            check_open(self._connection, [job])
            # A job that is refused changed nothing, so that the transaction can go on.
            add_jobs(self._connection, [job], now_ms)
        run(self._connection, "batch_complete", batch_id=batch_id, now_ms=now_ms)

    async def expire(self, *, limit: int = 1000) -> int:
        return await self._write(self._expire, limit)

    def _expire(self, limit: int) -> int:
        now_ms = self._now_ms()
        run(self._connection, "chosen_clear")
        run(self._connection, "choose_expired", now_ms=now_ms, limit=limit)
        return end_chosen(self._connection, JobState.EXPIRED, now_ms)

    async def retain(self, keep_s: dict[JobState, float], *, limit: int = 5000) -> int:
        return await self._write(self._retain, keep_s, limit)

    def _retain(self, keep_s: dict[JobState, float], limit: int) -> int:
        connection = self._connection
        now_ms = self._now_ms()
        run(connection, "chosen_clear")
        left = limit
        for state in FINAL & keep_s.keys():
            before_ms = now_ms - int(keep_s[state] * 1000)
            if state is JobState.COMPLETED:
                left -= self._choose_completed(before_ms, left)
            else:
                left -= run(
                    connection, "choose_old_ended",
                    state=state.value, before_ms=before_ms, limit=left,
                )  # fmt: skip
        return delete_chosen(connection)

    def _choose_completed(self, before_ms: int, limit: int) -> int:
        chosen = 0
        for (queue,) in self._connection.execute(statement("queues_completed")).fetchall():
            chosen += run(
                self._connection, "choose_old_completed",
                queue=queue, before_ms=before_ms, limit=limit - chosen,
            )  # fmt: skip
        return chosen

    async def tidy(self) -> None:
        await self._write(self._tidy)

    def _tidy(self) -> None:
        connection = self._connection
        now_ms = self._now_ms()
        run(connection, "keys_forget", before_ms=now_ms - _KEYS_KEPT_MS, limit=_AT_ONCE)
        run(connection, "commands_forget", before_ms=now_ms - _COMMANDS_KEPT_MS)
        run(connection, "answers_forget")
        run(connection, "slots_forget", kept_ms=SLOTS_KEPT_MS)
        run(connection, "throughput_forget", before=(now_ms - _THROUGHPUT_KEPT_MS) // MINUTE_MS)
        run(connection, "pace_forget", slice_ms=PACE_SLICE_MS, slices=_PACE_SLICES_KEPT)
        run(connection, "counts_forget")
        for queue, key in connection.execute(
            statement("blocked_keys"), {"most": _AT_ONCE}
        ).fetchall():
            let_in(connection, queue, key)
