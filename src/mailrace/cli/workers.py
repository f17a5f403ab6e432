"""`mailrace workers`: who works on a store, and orders to them."""

from collections.abc import Awaitable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import msgspec
from cyclopts import Parameter

from mailrace.cli.exits import DONE, FAILURES
from mailrace.cli.opening import on_store
from mailrace.cli.output import as_json, tell
from mailrace.cli.tables import table
from mailrace.cli.words import span
from mailrace.errors import ConflictError, MisuseError
from mailrace.jobs import Queue
from mailrace.queue.cluster import Cluster
from mailrace.queue.standing import Told, WorkerView
from mailrace.queue.supervisors import SupervisorRow


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Addressed:
    """Who is given an order, and how the answers are shown.

    Attributes:
        target: Who: all, node:HOST, supervisor:NAME or process:ID.
        wait: How many seconds to wait for answers.
        store: Where they work, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """

    target: str = "all"
    wait: float = 5.0
    store: str | None = None
    json: bool = False


class AddressedSupervisors(Addressed):
    """For an order that only supervisors carry out.

    Attributes:
        target: Who: all, node:HOST or supervisor:NAME.
    """


_ALL = Addressed()
_SUPERVISORS = AddressedSupervisors()


class _Order(Protocol):
    """One of the cluster's orders."""

    def __call__(self, cluster: Cluster, /, *, target: str, wait_s: float) -> Awaitable[Told]: ...


class Staff(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints.

    Attributes:
        now_ms: When, by the store's clock, Unix milliseconds.
    """

    now_ms: int
    workers: list[WorkerView]
    supervisors: list[SupervisorRow]


def workers(*, store: str | None = None, json: bool = False) -> int:
    """Lists the processes that work on a store, what they do and how they are.

    Args:
        store: Which one, by default sqlite:///mailrace.db.
        json: Print one JSON document instead of text.
    """
    found = on_store(store, _staff)
    if json:
        tell(as_json(found))
    elif not found.workers and not found.supervisors:
        tell("nobody works on it; start somebody with mailrace worker")
    else:
        tell("\n\n".join(_tables(found)))
    return DONE


def pause(*, to: Addressed = _ALL) -> int:
    """Has processes begin nothing more; what is under way goes on."""
    return _tell_them(Cluster.pause, to)


def resume(*, to: Addressed = _ALL) -> int:
    """Has paused processes go on."""
    return _tell_them(Cluster.resume, to)


def drain(*, to: Addressed = _ALL) -> int:
    """Has processes and supervisors end what is under way, and leave."""
    return _tell_them(Cluster.drain, to)


def stop(*, to: Addressed = _ALL) -> int:
    """Has processes and supervisors leave as drain does; given twice, supervisors hurry."""
    return _tell_them(Cluster.stop, to)


def restart(*, to: Addressed = _ALL) -> int:
    """Has processes be replaced, those of a supervisor one after the other."""
    return _tell_them(Cluster.restart, to)


def scale(processes: int, /, *, to: AddressedSupervisors = _SUPERVISORS) -> int:
    """Has each supervisor keep so many processes.

    Args:
        processes: How many.
    """
    return _tell_them(partial(Cluster.scale, processes=processes), to)


def start(processes: int = 1, /, *, to: AddressedSupervisors = _SUPERVISORS) -> int:
    """Has each supervisor start so many more processes.

    Args:
        processes: How many, by default one.
    """
    return _tell_them(partial(Cluster.start, processes=processes), to)


def reset_breakers(*, to: Addressed = _ALL) -> int:
    """Has processes try all kinds of jobs again, also those that failed too often."""
    return _tell_them(Cluster.reset_breakers, to)


def _tell_them(order: _Order, to: Addressed) -> int:
    """Gives an order and shows what everybody answered; exit code 1 if not everybody did it."""

    async def give(queue: Queue) -> Told:
        try:
            return await order(Cluster(queue.store), target=to.target, wait_s=to.wait)
        except ConflictError as error:  # nobody is there: nothing was done
            hint = "look with mailrace workers who is there"
            raise MisuseError(error.problem, hint=hint) from error

    told = on_store(to.store, give)
    if to.json:
        tell(as_json(told))
    else:
        done = {True: "", False: "not done: "}
        lines = [f"{one.by}: {done[one.done]}{one.text}" for one in told.answers]
        tell("\n".join([*lines, *(f"{name}: no answer yet" for name in told.silent)]))
    return DONE if told.done else FAILURES


async def _staff(queue: Queue) -> Staff:
    cluster = Cluster(queue.store)
    return Staff(
        now_ms=await queue.store.now_ms(),
        workers=await cluster.workers(),
        supervisors=await cluster.supervisors(),
    )


def _tables(staff: Staff) -> list[str]:
    found = []
    numbers, rest = ("jobs", "held", "completed", "failed"), ("supervisor", "since", "why")
    if staff.workers:
        found.append(
            table(
                ["process", "host", "pid", "state", "health", *numbers, "queues", *rest],
                [_worker(view, staff.now_ms) for view in staff.workers],
                right={"process", "pid", *numbers},
                ends_in_text=True,
            )
        )
    if staff.supervisors:
        found.append(
            table(
                ["supervisor", "host", "pid", "state", "processes", "bounds", "since"],
                [_supervisor(row, staff.now_ms) for row in staff.supervisors],
                right={"pid", "processes"},
            )
        )
    return found


def _worker(view: WorkerView, now_ms: int) -> tuple[object, ...]:
    row, vitals = view.process, view.process.vitals
    return (
        str(row.id),
        row.host,
        str(row.pid),
        vitals.state,
        view.health,
        f"{vitals.in_hand} of {row.concurrency}",
        vitals.held,
        vitals.completed,
        vitals.failed,
        ", ".join(row.queues),
        row.supervisor,
        span((now_ms - row.started_ms) / 1000),
        view.why,
    )


def _supervisor(row: SupervisorRow, now_ms: int) -> tuple[object, ...]:
    return (
        row.name,
        row.host,
        str(row.pid),
        "gone" if row.is_gone(now_ms) else row.state,
        f"{len(row.pids)} of {row.processes}",
        f"{row.processes_min} to {row.processes_max}",
        span((now_ms - row.started_ms) / 1000),
    )
