"""A supervisor and real processes: started, watched, replaced, restarted and stopped."""

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from mailrace.clock import SystemClock
from mailrace.errors import MisuseError, UnavailableError
from mailrace.events import Events
from mailrace.queue.children import (
    ProcessDied,
    ProcessEnded,
    ProcessStarted,
    backoff_s,
    why_ended,
)
from mailrace.queue.commands import Action, Answer, NewCommand
from mailrace.queue.jobrows import JobFilter
from mailrace.queue.loops import LoopFailed
from mailrace.queue.parent import PARENT_FD, Lifeline, parent_fd, parent_gone
from mailrace.queue.processes import NewProcess, ProcessRow, Vitals
from mailrace.queue.rolling import RestartEnded
from mailrace.queue.staffing import StaffingSettings
from mailrace.queue.stores.sqlite import SqliteStore
from mailrace.queue.supervisor import Scaled, Supervisor, SupervisorEnded
from mailrace.queue.supervisor_settings import SupervisorSettings
from mailrace.queue.supervisors import NOTES, SupervisorRow, read_supervisors
from tests.queue.houses import add

_SCRIPT = Path(__file__).with_name("supervised.py")
_LIMIT_S = 20
_E = TypeVar("_E")
_KINDS = (
    ProcessStarted, ProcessEnded, ProcessDied, RestartEnded, Scaled, SupervisorEnded, LoopFailed,
)  # fmt: skip


class Reports:
    """What processes tell: a named pipe, read line by line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[tuple[str, int, int]] = []
        self._came = asyncio.Event()
        self._rest = b""
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def _read(self) -> None:
        *lines, self._rest = (self._rest + os.read(self._fd, 65536)).split(b"\n")
        for line in lines:
            word, number, pid = line.decode().split()
            self.lines.append((word, int(number), int(pid)))
        self._came.set()

    def of(self, word: str) -> list[int]:
        """The pids that told it, in order."""
        return [pid for told, _, pid in self.lines if told == word]

    async def until(self, word: str, times: int = 1) -> list[int]:
        async with asyncio.timeout(_LIMIT_S):
            while len(found := self.of(word)) < times:
                self._came.clear()
                await self._came.wait()
        return found

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)


class Happened:
    """The events of a supervisor."""

    def __init__(self) -> None:
        self.events = Events()
        self.all: list[object] = []
        self._came = asyncio.Event()
        for kind in _KINDS:
            self.events.follow(kind, self._note)

    def _note(self, event: object) -> None:
        self.all.append(event)
        self._came.set()

    def of(self, kind: type[_E]) -> list[_E]:
        return [event for event in self.all if isinstance(event, kind)]

    async def until(self, kind: type[_E], times: int = 1) -> list[_E]:
        async with asyncio.timeout(_LIMIT_S):
            while len(found := self.of(kind)) < times:
                self._came.clear()
                await self._came.wait()
        return found


@dataclass(kw_only=True)
class Yard:
    """A store, and what is needed to run supervisors on it."""

    store: SqliteStore
    reports: Reports
    happened: Happened = field(default_factory=Happened)
    like: str = "good"

    def command(self, number: int) -> Sequence[str]:
        return [
            sys.executable, "-I", str(_SCRIPT), str(self.reports.path), str(number), self.like,
        ]  # fmt: skip

    def supervisor(
        self, *, command: Callable[[int], Sequence[str]] | None = None, **settings: Any
    ) -> Supervisor:
        return Supervisor(
            self.store,
            command or self.command,
            os.environ,
            clock=SystemClock(),
            rng=random.Random(1),
            events=self.happened.events,
            settings=SupervisorSettings(name="one", **settings),
        )

    @asynccontextmanager
    async def running(self, processes: int = 2, **settings: Any) -> AsyncIterator[Supervisor]:
        supervisor = self.supervisor(processes=processes, **settings)
        task = asyncio.create_task(supervisor.run())
        try:
            yield supervisor
        finally:
            supervisor.stop()
            async with asyncio.timeout(_LIMIT_S):
                await task

    async def tell(self, action: Action, target: str, argument: int | None = None) -> Answer:
        """Gives an order and waits for the answer."""
        command = await self.store.command(
            NewCommand(action=action, target=target, argument=argument)
        )
        async with asyncio.timeout(_LIMIT_S):
            while True:
                for answer in await self.store.answers(command):
                    return msgspec.structs.replace(answer, at_ms=0, command_id=0)
                await asyncio.sleep(0.01)

    async def row(self, until: Callable[[SupervisorRow], bool]) -> SupervisorRow:
        async with asyncio.timeout(_LIMIT_S):
            while True:
                for row in read_supervisors(await self.store.notes(NOTES)):
                    if until(row):
                        return row
                await asyncio.sleep(0.01)

    async def register(self, pid: int, supervisor: Supervisor) -> int:
        """Enters a process in the store, as it does itself when it works."""
        process = NewProcess(
            journal=f"{pid}", pid=pid, host=supervisor.host, supervisor="one", concurrency=1
        )
        return await self.store.register(process, 60.0)


@pytest.fixture
async def yard(tmp_path: Path) -> AsyncIterator[Yard]:
    store = SqliteStore.open(tmp_path / "jobs.db", SystemClock())
    yard = Yard(store=store, reports=Reports(tmp_path / "reports"))
    yield yard
    yard.reports.close()
    await store.close()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    return state != "Z"


# Starting and stopping


async def test_as_many_processes_run_as_are_wanted_and_all_end_with_the_supervisor(
    yard: Yard,
) -> None:
    async with yard.running(3) as supervisor:
        pids = await yard.reports.until("ready", 3)
        assert sorted(number for _, number, _ in yard.reports.lines) == [1, 2, 3]
        assert sorted(supervisor.pids) == sorted(pids)
        assert all(is_alive(pid) for pid in pids)
        supervisor.stop()
        (ended,) = await yard.happened.until(SupervisorEnded)
        assert ended == SupervisorEnded(name="one")
    assert sorted(yard.reports.of("term1")) == sorted(pids)
    assert not any(is_alive(pid) for pid in pids)
    assert [event.code for event in yard.happened.of(ProcessEnded)] == [0, 0, 0]


async def test_a_second_stop_has_processes_hurry(yard: Yard) -> None:
    yard.like = "slow"
    async with yard.running(2) as supervisor:
        await yard.reports.until("ready", 2)
        supervisor.stop()
        supervisor.drain()  # is no second time
        await yard.reports.until("term1", 2)
        assert yard.reports.of("term2") == []
        supervisor.stop()
        await yard.reports.until("term2", 2)
        await yard.happened.until(SupervisorEnded)
    assert [event.code for event in yard.happened.of(ProcessEnded)] == [0, 0]


async def test_what_does_not_end_after_a_second_stop_is_killed(yard: Yard) -> None:
    yard.like = "stubborn"
    async with yard.running(2, kill_after_s=0.3) as supervisor:
        pids = await yard.reports.until("ready", 2)
        supervisor.stop()
        await yard.reports.until("term1", 2)
        supervisor.stop()
        await yard.happened.until(SupervisorEnded)
        assert not any(is_alive(pid) for pid in pids)
    assert len(yard.reports.of("term2")) == 2
    assert [event.code for event in yard.happened.of(ProcessEnded)] == [-9, -9]


async def test_a_supervisor_that_is_cancelled_leaves_no_process(yard: Yard) -> None:
    yard.like = "stubborn"
    running = asyncio.create_task(yard.supervisor(processes=2).run())
    pids = await yard.reports.until("ready", 2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not any(is_alive(pid) for pid in pids)


# Dying and coming back


async def test_a_process_that_dies_is_replaced_in_its_place_and_the_death_is_told(
    yard: Yard,
) -> None:
    async with yard.running(2):
        await yard.reports.until("ready", 2)
        victim = next(pid for _, number, pid in yard.reports.lines if number == 2)
        os.kill(victim, signal.SIGKILL)
        (death,) = await yard.happened.until(ProcessDied)
        assert (death.number, death.pid, death.why) == (2, victim, "killed by SIGKILL")
        assert 0.05 <= death.again_in_s <= 0.1
        await yard.reports.until("ready", 3)
        assert yard.reports.lines[-1][1] == 2


async def test_processes_that_die_young_are_started_ever_less_often(yard: Yard) -> None:
    yard.like = "broken"
    async with yard.running(1):
        deaths = await yard.happened.until(ProcessDied, 4)
    assert {(death.why, death.asked) for death in deaths} == {("exit code 3", False)}
    for place, death in enumerate(deaths):
        assert 0.05 * 2**place <= death.again_in_s <= 0.1 * 2**place


async def test_a_process_that_asks_for_a_restart_is_replaced_at_once(yard: Yard) -> None:
    async with yard.running(1):
        (pid,) = await yard.reports.until("ready")
        os.kill(pid, signal.SIGUSR1)
        (death,) = await yard.happened.until(ProcessDied)
        assert (death.why, death.again_in_s) == ("asked to be restarted", 0.0)
        assert death.asked
        await yard.reports.until("ready", 2)


async def test_one_that_asks_for_a_restart_over_and_over_does_not_spin(yard: Yard) -> None:
    yard.like = "restarting"
    async with yard.running(1):
        deaths = await yard.happened.until(ProcessDied, 4)
    assert [death.again_in_s > 0 for death in deaths] == [False, True, True, True]
    assert deaths[3].again_in_s > deaths[1].again_in_s


@pytest.mark.parametrize(("like", "most_s"), [("restarting", 0.0), ("broken", 0.1)])
async def test_one_that_lived_for_long_is_replaced_as_if_it_were_the_first(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, like: str, most_s: float
) -> None:
    monkeypatch.setattr("mailrace.queue.children._YOUNG_S", 0.0)
    yard.like = like
    async with yard.running(1):
        deaths = await yard.happened.until(ProcessDied, 3)
    assert all(most_s / 2 <= death.again_in_s <= most_s for death in deaths)


async def test_a_program_that_is_not_there_is_told_and_tried_again(yard: Yard) -> None:
    supervisor = yard.supervisor(command=lambda _: ["/no/such/program"], processes=1)
    running = asyncio.create_task(supervisor.run())
    deaths = await yard.happened.until(ProcessDied, 2)
    supervisor.stop()
    await running
    assert {death.pid for death in deaths} == {0}
    assert deaths[0].why.startswith("cannot be started: ")
    assert "/no/such/program" in deaths[0].why


async def test_a_process_that_ends_well_is_not_replaced_until_somebody_wants_one(
    yard: Yard,
) -> None:
    async with yard.running(3) as supervisor:
        first, second, _ = await yard.reports.until("ready", 3)
        for pid in (first, second):
            os.kill(pid, signal.SIGUSR2)
        ended = await yard.happened.until(ProcessEnded, 2)
        assert {event.pid: event.code for event in ended} == {first: 0, second: 0}
        assert supervisor.processes == 1
        answer = await yard.tell(Action.START, "supervisor:one")
        assert answer == Answer(
            command_id=0, by="supervisor:one", done=True, text="2 processes, 1 process before"
        )
        await yard.reports.until("ready", 4)
        with pytest.raises(MisuseError):
            supervisor.scale(2)  # of three that there are to be
    assert yard.happened.of(ProcessDied) == []


@pytest.mark.parametrize("deaths", range(0, 2000, 97))
def test_a_backoff_is_bounded(deaths: int) -> None:
    shortest, longest = backoff_s(deaths, 0.0), backoff_s(deaths, 1.0)
    assert 0 <= shortest <= longest <= 15.0
    assert longest == (15.0 if deaths else 0.0)
    assert shortest == longest / 2


def test_exit_codes_are_said_in_words() -> None:
    assert why_ended(1) == "exit code 1"
    assert why_ended(-11) == "killed by SIGSEGV"
    assert why_ended(-4711) == "killed by signal 4711"


# Restarting one after the other


async def test_a_rolling_restart_drains_the_old_process_only_when_the_new_one_works(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: asyncio.Queue[None] = asyncio.Queue()
    look = yard.store.processes

    async def processes() -> list[ProcessRow]:
        looked.put_nowait(None)
        return await look()

    monkeypatch.setattr(yard.store, "processes", processes)
    async with yard.running(2) as supervisor:
        old = await yard.reports.until("ready", 2)
        for pid in old:
            await yard.register(pid, supervisor)
        assert supervisor.restart() == 2
        for replaced in (1, 2):
            *_, new = await yard.reports.until("ready", 2 + replaced)
            async with asyncio.timeout(_LIMIT_S):
                for _ in range(looked.qsize() + 2):
                    await looked.get()
            assert len(yard.reports.of("term1")) == replaced - 1
            assert len(supervisor.pids) == 3
            assert supervisor.state == "restarting"
            await yard.register(new, supervisor)
            await yard.reports.until("term1", replaced)
        (ended,) = await yard.happened.until(RestartEnded)
        assert ended == RestartEnded(replaced=2)
        assert sorted(yard.reports.of("term1")) == sorted(old)
        assert set(supervisor.pids).isdisjoint(old)
        assert (supervisor.processes, supervisor.state) == (2, "working")
    assert yard.happened.of(ProcessDied) == []


async def test_a_new_process_that_dies_ends_the_restart_and_the_old_ones_stay(yard: Yard) -> None:
    async with yard.running(2) as supervisor:
        old = await yard.reports.until("ready", 2)
        yard.like = "broken"
        supervisor.restart()
        (ended,) = await yard.happened.until(RestartEnded)
        assert ended == RestartEnded(replaced=0, why_not="the new process ended before it worked")
        assert sorted(supervisor.pids) == sorted(old)
        assert supervisor.processes == 2
    assert sorted(yard.reports.of("term1")) == sorted(old)


async def test_a_new_process_that_does_not_come_to_work_ends_the_restart(yard: Yard) -> None:
    async with yard.running(1, start_limit_s=0.5) as supervisor:
        (old,) = await yard.reports.until("ready")
        supervisor.restart()
        _, new = await yard.reports.until("ready", 2)
        await yard.reports.until("term1")
        assert yard.reports.of("term1") == [new]
        (ended,) = yard.happened.of(RestartEnded)
        assert ended == RestartEnded(
            replaced=0, why_not="the new process did not work after 0.5 seconds"
        )
        await yard.happened.until(ProcessEnded)
        assert supervisor.pids == (old,)


async def test_an_old_process_that_ends_by_itself_meanwhile_needs_no_replacement(
    yard: Yard,
) -> None:
    async with yard.running(1) as supervisor:
        (old,) = await yard.reports.until("ready")
        supervisor.restart()
        _, new = await yard.reports.until("ready", 2)
        os.kill(old, signal.SIGUSR2)
        await yard.happened.until(RestartEnded)
        await yard.reports.until("term1")
        assert yard.reports.of("term1") == [new]
        await yard.happened.until(ProcessEnded, 2)
        assert (supervisor.pids, supervisor.processes) == ((), 0)


async def test_a_stop_ends_a_restart_that_is_on(yard: Yard) -> None:
    async with yard.running(2) as supervisor:
        await yard.reports.until("ready", 2)
        supervisor.restart()
        await yard.reports.until("ready", 3)
        supervisor.stop()
        await yard.happened.until(SupervisorEnded)
    (ended,) = yard.happened.of(RestartEnded)
    assert ended == RestartEnded(replaced=0, why_not="all processes were told to end")
    assert len(yard.reports.of("ready")) == 3


# Orders


async def test_orders_within_the_bounds_are_carried_out_and_others_refused(yard: Yard) -> None:
    bounds = StaffingSettings(processes_min=1, processes_max=3)
    async with yard.running(1, staffing=bounds) as supervisor:
        await yard.reports.until("ready", 1)
        node = f"node:{supervisor.host}"
        refused = await asyncio.gather(
            yard.tell(Action.SCALE, node, 4),
            yard.tell(Action.START, node, 3),
            yard.tell(Action.START, node, 0),
            yard.tell(Action.SCALE, node, 0),
            yard.tell(Action.SCALE, node),
        )
        assert not any(answer.done for answer in refused)
        assert refused[0].text.startswith("4 processes cannot be: 1 to 3 may run here")
        assert supervisor.processes == 1
        done = await yard.tell(Action.SCALE, "all", 3)
        assert (done.done, done.text) == (True, "3 processes, 1 process before")
        await yard.reports.until("ready", 3)
        done = await yard.tell(Action.SCALE, "supervisor:one", 2)
        assert done.done
        (ended,) = await yard.happened.until(ProcessEnded)
        assert ended.number == 3
        assert [event.processes for event in yard.happened.of(Scaled)] == [3, 2]


async def test_an_order_to_restart_is_answered_and_carried_out(yard: Yard) -> None:
    async with yard.running(2) as supervisor:
        await yard.reports.until("ready", 2)
        answer = await yard.tell(Action.RESTART, "supervisor:one")
        assert answer.text == "2 processes restarted one after the other"
        assert supervisor.state == "restarting"


@pytest.mark.parametrize("action", [Action.STOP, Action.DRAIN])
async def test_an_order_to_end_is_answered_and_ends_all(yard: Yard, action: Action) -> None:
    async with yard.running(2) as supervisor:
        await yard.reports.until("ready", 2)
        answer = await yard.tell(action, f"node:{supervisor.host}")
        assert answer.done
        assert answer.text.startswith("2 processes told to ")
        await yard.happened.until(SupervisorEnded)
        assert supervisor.pids == ()


async def test_a_draining_supervisor_starts_nothing(yard: Yard) -> None:
    yard.like = "slow"
    async with yard.running(1) as supervisor:
        await yard.reports.until("ready", 1)
        supervisor.drain()
        await yard.reports.until("term1", 1)
        answer = await yard.tell(Action.START, "supervisor:one")
        assert (answer.done, answer.text) == (
            False, "it is draining, and starts nothing any more",
        )  # fmt: skip


async def test_what_was_ordered_before_it_came_or_is_for_processes_is_left_alone(
    yard: Yard,
) -> None:
    early = await yard.store.command(NewCommand(action=Action.STOP))
    async with yard.running(1) as supervisor:
        await yard.reports.until("ready", 1)
        pause = await yard.store.command(NewCommand(action=Action.PAUSE))
        await yard.tell(Action.SCALE, "supervisor:one", 1)
        assert await yard.store.answers(early) == []
        assert await yard.store.answers(pause) == []
        assert supervisor.state == "working"


# Need


async def test_processes_come_when_jobs_wait_too_long_and_leave_when_nothing_does(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailrace.queue.supervisor._STAFFING_S", 0.05)
    bounds = StaffingSettings(
        processes_min=1, processes_max=2, wait_up_s=0.05, wait_down_s=0.1,
        up_cool_down_s=0.0, down_cool_down_s=0.2,
    )  # fmt: skip
    ids = await add(yard.store, "a", "b")
    async with yard.running(1, staffing=bounds) as supervisor:
        (pid,) = await yard.reports.until("ready")
        process = await yard.register(pid, supervisor)
        renew = yard.store.renewer(process, 60.0)
        await asyncio.to_thread(renew, Vitals(in_hand=1))
        (up,) = await yard.happened.until(Scaled)
        assert (up.before, up.processes, up.reason) == (1, 2, "jobs wait too long")
        await yard.reports.until("ready", 2)
        await asyncio.to_thread(renew, Vitals(in_hand=0))
        await yard.store.cancel(JobFilter(ids=tuple(ids)))
        _, down = await yard.happened.until(Scaled, 2)
        assert (down.before, down.processes) == (2, 1)
        assert down.reason == "nothing is due and hands are idle"
        (ended,) = await yard.happened.until(ProcessEnded)
        assert (ended.number, supervisor.pids) == (2, (pid,))


async def test_what_somebody_stopped_by_hand_is_not_started_again_for_the_minimum(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailrace.queue.supervisor._STAFFING_S", 0.02)
    bounds = StaffingSettings(processes_min=2, processes_max=3)
    async with yard.running(2, staffing=bounds) as supervisor:
        first, _ = await yard.reports.until("ready", 2)
        os.kill(first, signal.SIGUSR2)
        await yard.happened.until(ProcessEnded)
        # Answered after half a second: many times as often its staffing has been looked at.
        assert not (await yard.tell(Action.SCALE, "supervisor:one", 9)).done
        assert supervisor.processes == 1


# What others see of it


async def test_others_see_it_while_it_lives_and_not_after_it_was_stopped(yard: Yard) -> None:
    bounds = StaffingSettings(processes_min=1, processes_max=5)
    async with yard.running(2, staffing=bounds, queues=("mail",)) as supervisor:
        await yard.reports.until("ready", 2)
        row = await yard.row(lambda row: len(row.pids) == 2)
        assert row.name == "one"
        assert (row.host, row.pid) == (supervisor.host, os.getpid())
        assert (row.processes, row.processes_min, row.processes_max) == (2, 1, 5)
        assert row.queues == ("mail",)
        assert row.pids == supervisor.pids
        assert not row.is_gone(row.heartbeat_ms + 15_000)
        assert row.is_gone(row.heartbeat_ms + 15_001)
    assert await yard.store.notes(NOTES) == {}


async def test_processes_are_watched_while_the_store_is_out_of_reach(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise UnavailableError("the store is not usable now")

    for name in ("now_ms", "note", "commands", "processes"):
        monkeypatch.setattr(yard.store, name, fail)
    async with yard.running(1) as supervisor:
        (pid,) = await yard.reports.until("ready")
        await yard.happened.until(LoopFailed, 2)
        os.kill(pid, signal.SIGKILL)
        await yard.reports.until("ready", 2)
        supervisor.stop()
        (ended,) = await yard.happened.until(SupervisorEnded)
        assert isinstance(ended.error, UnavailableError)


def test_settings_that_cannot_be_are_refused() -> None:
    bounds = StaffingSettings(processes_min=2, processes_max=3)
    wrong: list[dict[str, Any]] = [
        {"processes": 0},
        {"processes": 1, "staffing": bounds},
        {"processes": 4, "staffing": bounds},
        {"kill_after_s": 0.0},
        {"start_limit_s": -1.0},
    ]
    for settings in wrong:
        with pytest.raises(MisuseError):
            SupervisorSettings(**settings)
    assert SupervisorSettings().processes == len(os.sched_getaffinity(0))


# The supervisor as a process of its own


@asynccontextmanager
async def own_process(
    yard: Yard, folder: Path, loop: str = "asyncio", like: str = "good"
) -> AsyncIterator[asyncio.subprocess.Process]:
    script = Path(__file__).with_name("supervisor_to_kill.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), str(folder), like, loop, start_new_session=True
    )
    try:
        await yard.reports.until("ready", 2)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_processes_drain_when_their_supervisor_was_killed(
    yard: Yard, tmp_path: Path, loop: str
) -> None:
    async with own_process(yard, tmp_path, loop) as process:
        process.kill()
        orphans = await yard.reports.until("orphan", 2)
        assert sorted(orphans) == sorted(yard.reports.of("ready"))
        assert yard.reports.of("term1") == []


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_has_it_drain_and_end_well(
    yard: Yard, tmp_path: Path, number: signal.Signals, loop: str
) -> None:
    async with own_process(yard, tmp_path, loop) as process:
        os.killpg(process.pid, number)  # as a terminal does
        async with asyncio.timeout(_LIMIT_S):
            assert await process.wait() == 0
        assert len(await yard.reports.until("term1", 2)) == 2
        assert yard.reports.of("interrupted") == []
        assert not any(is_alive(pid) for pid in yard.reports.of("ready"))


async def test_signals_twice_end_it_also_where_processes_do_not_listen(
    yard: Yard, tmp_path: Path
) -> None:
    async with own_process(yard, tmp_path, like="stubborn") as process:
        process.send_signal(signal.SIGTERM)
        await yard.reports.until("term1", 2)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_LIMIT_S):
            assert await process.wait() == 0
        assert not any(is_alive(pid) for pid in yard.reports.of("ready"))


async def test_sighup_begins_a_rolling_restart(yard: Yard, tmp_path: Path) -> None:
    async with own_process(yard, tmp_path) as process:
        process.send_signal(signal.SIGHUP)
        row = await yard.row(lambda row: row.state == "restarting")
        *_, new = await yard.reports.until("ready", 3)
        entered = NewProcess(journal="new", pid=new, host=row.host, supervisor="one")
        await yard.store.register(entered, 60.0)
        (old,) = await yard.reports.until("term1")
        assert old in row.pids
        assert is_alive(new)


# The child's side


async def test_a_child_learns_that_its_parent_is_gone() -> None:
    line = Lifeline()
    own = os.dup(line.fd)
    gone = parent_gone(own)
    await asyncio.sleep(0)
    assert not gone.is_set()
    line.close()
    line.close()
    async with asyncio.timeout(_LIMIT_S):
        await gone.wait()
    assert not asyncio.get_running_loop().remove_reader(own), "or it would be called for ever"
    os.close(own)


def test_who_has_no_parent_has_no_pipe() -> None:
    assert parent_fd({}) is None
    assert parent_fd({PARENT_FD: ""}) is None
    assert parent_fd({PARENT_FD: "7"}) == 7
    with pytest.raises(MisuseError):
        parent_fd({PARENT_FD: "seven"})


async def test_a_pipe_that_is_not_there_is_said() -> None:
    with pytest.raises(MisuseError, match="no file of that number is open"):
        parent_gone(4711)
