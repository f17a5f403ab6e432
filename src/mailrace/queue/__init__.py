"""Durable jobs: states, claiming, finishing, rescue."""

from mailrace.queue.attempts import Gate, Handler, Result
from mailrace.queue.jobs import Batch, BatchReport, ClaimedJob, NewJob, Reason
from mailrace.queue.rescue import Rescuer
from mailrace.queue.runner import End, LeaseLost, Rescued, Runner, RunnerSettings
from mailrace.queue.states import JobState, Step
from mailrace.queue.store import Store
from mailrace.queue.workers import Attempted, Troubled

__all__ = [
    "Attempted",
    "Batch",
    "BatchReport",
    "ClaimedJob",
    "End",
    "Gate",
    "Handler",
    "JobState",
    "LeaseLost",
    "NewJob",
    "Reason",
    "Rescued",
    "Rescuer",
    "Result",
    "Runner",
    "RunnerSettings",
    "Step",
    "Store",
    "Troubled",
]
