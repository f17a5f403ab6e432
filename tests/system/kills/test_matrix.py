"""Processes that are killed, stopped or frozen at chosen moments: nothing is lost or doubled."""

import os
import random
import signal
import sqlite3
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field

import psycopg
import pytest

from mailrace.jobs import JobState
from tests.system.kills.books import KINDS, Books
from tests.system.kills.processes import Process

ROUNDS = int(os.environ.get("MAILRACE_TEST_KILLS", "0"))
MOMENTS = ("claim", "running", "finish", "in line", "heartbeat lost")
BLOWS = ("killed", "told once", "told twice", "frozen")
ALL = [(moment, blow) for moment in MOMENTS for blow in BLOWS]
# A choice, for time; with MAILRACE_TEST_KILLS=1 every cell is run on both stores.
ON_SQLITE = [
    ("claim", "told once"), ("claim", "frozen"), ("running", "killed"), ("running", "told twice"),
    ("finish", "killed"), ("finish", "frozen"), ("in line", "told once"),
    ("heartbeat lost", "told twice"),
]  # fmt: skip
ON_POSTGRES = [
    ("claim", "killed"), ("running", "killed"), ("running", "told once"), ("running", "frozen"),
    ("finish", "killed"), ("finish", "told once"), ("in line", "killed"),
    ("in line", "told twice"), ("heartbeat lost", "killed"),
]  # fmt: skip
JOBS = 6 * len(KINDS)
WORKERS = 4
LEASE_S = 1.5
TENANTS = 6
AT_ONCE_S = 10.0  # on a busy machine; the grace is ten minutes


@dataclass
class Cell:
    """One process at one moment, the blow, and another process that goes on."""

    books: Books
    moment: str
    blow: str
    stack: ExitStack
    held: set[int] = field(default_factory=set)

    def run(self) -> None:
        self.fill()
        victim = self.victim()
        self.held = self.in_hand()
        getattr(self, "is_" + self.blow.replace(" ", "_"))(victim)
        self.books.check()
        self.check_outcome()

    def fill(self) -> None:
        if self.moment == "in line":
            for number in range(TENANTS):
                self.books.enqueue(["slow", "once", "quick"], tenant=f"t{number}")
            self.books.limit("one/{tenant}", "1/h", [f"t{number}" for number in range(TENANTS)])
        else:
            self.books.enqueue([*KINDS] * (JOBS // len(KINDS)))

    def victim(self) -> Process:
        """A process at its moment."""
        found = self.books.process(
            self.stack,
            holds=[self.moment if self.moment in {"claim", "finish"} else "running"],
            concurrency=TENANTS if self.moment == "in line" else WORKERS,
            deaf=self.moment == "heartbeat lost",
            lease_s=LEASE_S if self.moment == "heartbeat lost" or self.blow == "frozen" else 30.0,
            grace_s=600.0 if self.blow == "told twice" else 0.2,
            told=True,
        )
        match self.moment:
            case "claim":
                found.until("claim")
            case "finish":
                found.until("finish")
                found.jobs_until("attempted", JOBS)
            case "in line":
                found.jobs_until("begin", TENANTS)
                found.jobs_until("claim", 2 * TENANTS)
                self.books.limit(None)
            case _:
                self.until_all_busy(found)
        if self.moment == "heartbeat lost":
            found.until("lease lost")
        return found

    def until_all_busy(self, process: Process) -> None:
        """Until every worker stands in a handler, and there are jobs that wait for one."""
        quick = self.books.of("quick")
        busy = 0
        while busy < WORKERS:
            busy += not quick.issuperset(process.until("begin")["jobs"])
        process.jobs_until("claim", len(self.books.begun()) + WORKERS)

    def in_hand(self) -> set[int]:
        """What handlers have begun and not ended."""
        effects = self.books.effects()
        ended = {effect.job for effect in effects if effect.what == "end"}
        return {effect.job for effect in effects} - ended

    # The blows

    def is_killed(self, victim: Process) -> None:
        victim.kill()
        self.finish()

    def is_told_once(self, victim: Process) -> None:
        began_s = time.monotonic()
        victim.drain()
        assert time.monotonic() - began_s < AT_ONCE_S
        self.check_handed_back()
        self.finish()

    def is_told_twice(self, victim: Process) -> None:
        victim.send(signal.SIGTERM)
        victim.until("signalled")
        self.is_told_once(victim)

    def is_frozen(self, victim: Process) -> None:
        """For longer than its lease; the other one has done everything when it comes to."""
        freeze(victim, self.books.store)
        other = self.books.process(self.stack, lease_s=2 * LEASE_S)
        self.books.until_final()
        victim.send(signal.SIGUSR1)
        victim.send(signal.SIGCONT)
        victim.until_ever("lease lost")
        if self.moment == "finish":
            refused = victim.until_ever("finished")
            assert refused["refused"] == refused["jobs"]
        victim.drain()
        other.drain()

    def finish(self) -> None:
        with Process(**self.books.plan) as other:
            other.until("working")
            self.books.until_final()
            other.drain()

    # What came of it

    def check_handed_back(self) -> None:
        """After an ordered end: nothing runs, and no attempt is counted that came to nothing."""
        if self.moment == "heartbeat lost":
            return  # the jobs were no longer its own
        rows, begun = self.books.rows(), self.books.begun()
        for job, row in rows.items():
            done = begun[job] and job not in self.held
            if done or self.moment == "finish":
                assert row.state is JobState.COMPLETED
            elif job in self.held & self.books.of("once"):
                assert row.state is JobState.UNCERTAIN
            else:
                assert (row.state, row.attempt, row.deaths) == (JobState.AVAILABLE, 0, 0)

    def check_outcome(self) -> None:
        """Only what was in a handler's hands may have been begun twice, or be uncertain."""
        states, begun, rows = self.books.states(), self.books.begun(), self.books.rows()
        assert states.get(JobState.UNCERTAIN, set()) == self.held & self.books.of("once")
        for job in self.books.kinds:
            again = job in self.held - self.books.of("once")
            assert begun[job] == 1 + again, (job, self.books.kinds[job])
            died = again and self.blow in {"killed", "frozen"}
            if self.moment != "heartbeat lost":  # there they were let go by the process itself
                assert rows[job].deaths == died


def freeze(process: Process, store: str) -> None:
    """Stops a process, but not while it keeps others from the store."""
    while True:
        process.send(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)  # all its threads stand still
        if not keeps_others_out(store):
            return
        process.send(signal.SIGCONT)


def keeps_others_out(store: str) -> bool:
    if store.startswith("sqlite:///"):
        path = store.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path, timeout=0.5, isolation_level=None)) as connection:
            with suppress(sqlite3.OperationalError):
                connection.execute("BEGIN IMMEDIATE")
                return False
            return True
    with psycopg.connect(store) as connection:
        open_ones = connection.execute(
            "SELECT FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
            " AND datname = current_database()"
        ).fetchall()
    return bool(open_ones)


@pytest.mark.parametrize(("moment", "blow"), ALL if ROUNDS else ON_SQLITE)
def test_whatever_happens_to_a_process_at_a_moment_on_sqlite(
    sqlite_books: Books, stack: ExitStack, moment: str, blow: str
) -> None:
    Cell(sqlite_books, moment, blow, stack).run()


@pytest.mark.parametrize(("moment", "blow"), ALL if ROUNDS else ON_POSTGRES)
def test_whatever_happens_to_a_process_at_a_moment_on_postgres(
    postgres_books: Books, stack: ExitStack, moment: str, blow: str
) -> None:
    Cell(postgres_books, moment, blow, stack).run()


@pytest.mark.skipif(not ROUNDS, reason="MAILRACE_TEST_KILLS names no rounds")
@pytest.mark.parametrize("turn", range(max(1, ROUNDS)))
def test_any_blow_at_any_time(books: Books, stack: ExitStack, turn: int) -> None:
    """The same without a chosen moment: so often as MAILRACE_TEST_KILLS says."""
    books.enqueue([*KINDS] * 200)
    others = [start_one(books, stack)]
    for _ in range(6):
        victim = start_one(books, stack)
        victim.until("working")
        time.sleep(random.random())
        strike(victim, books.store)
        others.append(victim)
    stack.enter_context(Process(**books.plan, lease_s=LEASE_S)).until("working")
    books.until_final()
    stack.close()
    with Process(**books.plan, lease_s=LEASE_S) as last:
        last.until("working")
        books.until(lambda _: not list(books.journals.glob("*.journal"))[1:])
        last.drain()
    books.check()


def start_one(books: Books, stack: ExitStack) -> Process:
    return books.process(stack, lease_s=LEASE_S, pause_s=0.02, concurrency=3)


def strike(victim: Process, store: str) -> None:
    match random.choice(BLOWS):
        case "killed":
            victim.kill()
        case "told once":
            victim.drain()
        case "told twice":
            victim.send(signal.SIGTERM)
            victim.send(signal.SIGTERM)
            victim.exit_code()
        case "frozen":
            freeze(victim, store)
            time.sleep(random.random() * 3 * LEASE_S)
            victim.send(signal.SIGCONT)
