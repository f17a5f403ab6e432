"""What can go wrong between a program and its pool."""

from mailrace.errors import MailraceError, MisuseError, UnavailableError


class PoolFullError(UnavailableError):
    """There is no room in the queue, or memory runs short: nothing was enqueued."""


class PoolClosedError(MisuseError):
    """The pool takes no jobs any more, or gave this one back when it closed."""


class JobError(MailraceError):
    """A job came to an end without a result of its handler."""


class JobCancelledError(JobError):
    """Somebody cancelled the job."""


class JobExpiredError(JobError):
    """The job's time to start had passed before its turn came."""


class JobDroppedError(JobError):
    """The job had to make room for others, by the pool's overflow policy or for want of memory."""


class JobTimeoutError(JobError, TimeoutError):
    """The attempt took longer than its timeout or than what was left of the job's deadline."""


class WorkerDiedError(JobError, UnavailableError):
    """The worker or its process ended in the middle of the job."""
