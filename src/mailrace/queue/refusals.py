"""What every store says when it refuses a step, in the same words."""

from mailrace.errors import ConflictError


def queue_draining(name: str) -> ConflictError:
    return ConflictError(
        f"the queue {name!r} is draining: it takes no new jobs",
        hint="enqueue into another queue, or end the draining",
    )


def no_batch(batch_id: int) -> ConflictError:
    return ConflictError(f"there is no batch {batch_id}", hint="list the batches for their ids")


def batch_sealed(batch_id: int) -> ConflictError:
    return ConflictError(
        f"the batch {batch_id} is sealed: it takes no new jobs", hint="open a batch of another name"
    )


def no_limit(name: str) -> ConflictError:
    return ConflictError(f"there is no limit {name!r}", hint="set it first")


def no_schedule(name: str) -> ConflictError:
    return ConflictError(f"there is no schedule {name!r}", hint="make it first")


def process_unknown(process_id: int) -> ConflictError:
    return ConflictError(
        f"the process {process_id} is no longer known: its leases were taken over",
        hint="register again",
    )
