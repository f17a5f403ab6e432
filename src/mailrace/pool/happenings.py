"""What happens in a pool besides the outcomes of jobs, as events."""

from dataclasses import dataclass

from mailrace.pool.scaling import ScaleReason


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDied:
    """A worker ended by a fault; another one takes its place."""

    pool: str
    worker: int
    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginFailed:
    """A plugin raised where that changes nothing for the job."""

    pool: str
    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """The number of workers was changed."""

    pool: str
    workers: int
    before: int
    reason: ScaleReason
