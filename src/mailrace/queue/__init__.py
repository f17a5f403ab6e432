"""Durable jobs: states, claiming, finishing, rescue."""

from mailrace.queue.attempts import Gate, Handler, Result
from mailrace.queue.batches import Batch, BatchReport, Reason, queue_of
from mailrace.queue.jobs import ClaimedJob, Enqueued, Lane, NewJob
from mailrace.queue.journal import boot_id
from mailrace.queue.limits import LimitRow
from mailrace.queue.memory import MemoryUsedUp
from mailrace.queue.rescue import Rescued, Rescuer
from mailrace.queue.runner import End, Runner, RunnerSettings
from mailrace.queue.session import Place, node_of
from mailrace.queue.sessions import LeaseLost
from mailrace.queue.sharing import shared_limiter
from mailrace.queue.states import JobState, Step
from mailrace.queue.store import Store
from mailrace.queue.tally import Attempted, Troubled

__all__ = [
    "Attempted",
    "Batch",
    "BatchReport",
    "ClaimedJob",
    "End",
    "Enqueued",
    "Gate",
    "Handler",
    "JobState",
    "Lane",
    "LeaseLost",
    "LimitRow",
    "MemoryUsedUp",
    "NewJob",
    "Place",
    "Reason",
    "Rescued",
    "Rescuer",
    "Result",
    "Runner",
    "RunnerSettings",
    "Step",
    "Store",
    "Troubled",
    "boot_id",
    "node_of",
    "queue_of",
    "shared_limiter",
]
