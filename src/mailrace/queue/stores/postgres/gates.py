"""What bounds how many jobs of a queue, or with a key, run at a time: made right again."""

from mailrace.queue.stores.postgres.database import Statements


async def mend(statements: Statements, queue: str) -> None:
    """Counts anew what runs behind a queue's gates, by its rules of now, and lets go who may go.

    In a transaction of its own. The gate of the queue itself is locked first, as by whoever claims
    there or ends a job: the rest cannot change meanwhile.
    """
    await statements.run("gate_lock", queue=queue)
    await statements.run("gates_mark", queue=queue)
    await statements.run("gates_count", queue=queue)
    await statements.run("gates_close", queue=queue)
    await statements.run("unblock", queue=queue)
