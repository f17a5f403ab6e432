"""What became of every job that a pool accepted."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """All accepted jobs, each counted in exactly one place. `refused` ones never came in.

    Attributes:
        accepted: Jobs that the pool took.
        queued: They wait for a worker, those in the overflow buffer included.
        delayed: They wait for their next attempt.
        running: A worker has them.
        completed: Their function returned.
        failed: Their last attempt failed; the dead letters.
        cancelled: Somebody cancelled them.
        expired: They did not start in time.
        dropped: They made room for others.
        handed_back: The pool closed before they were done.
        refused: Submits that were turned away: no accepted jobs.
    """

    accepted: int
    queued: int
    delayed: int
    running: int
    completed: int
    failed: int
    cancelled: int
    expired: int
    dropped: int
    handed_back: int
    refused: int

    @property
    def unfinished(self) -> int:
        return self.queued + self.delayed + self.running

    @property
    def final(self) -> int:
        return (
            self.completed
            + self.failed
            + self.cancelled
            + self.expired
            + self.dropped
            + self.handed_back
        )

    @property
    def balanced(self) -> bool:
        """Whether every accepted job is somewhere, and nowhere twice."""
        return self.accepted == self.unfinished + self.final
