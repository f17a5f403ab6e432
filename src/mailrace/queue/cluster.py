"""The face of the cluster: who works, how it stands, and orders to those who work."""

from collections.abc import Iterable, Mapping
from typing import Final

from mailrace.clock import Clock, SystemClock
from mailrace.errors import ConflictError, MisuseError
from mailrace.queue.alerts import Alert, AlertRule
from mailrace.queue.commands import Action, Answer, NewCommand
from mailrace.queue.jobrows import JobFilter
from mailrace.queue.processes import ProcessRow
from mailrace.queue.queuerules import QueueRules
from mailrace.queue.standing import SystemFigures, Told, WorkerView, system_of, view_of
from mailrace.queue.states import WAITING, JobState
from mailrace.queue.store import Store
from mailrace.queue.supervisors import NOTES, SupervisorRow, read_supervisors
from mailrace.queue.watching import read_alerts, read_rules, write_rules
from mailrace.queue.why import Facts, reasons

_LOOK_S: Final = 0.1
_SAMPLE: Final = 200
_FOR_SUPERVISORS: Final = frozenset({Action.START, Action.SCALE})
_FOR_BOTH: Final = frozenset({Action.STOP, Action.DRAIN})
_ENDING: Final = frozenset({Action.STOP, Action.DRAIN, Action.RESTART})


class Cluster:
    """All processes that work on one store, on whatever machines.

    Orders are for processes that run: one that is started later knows nothing of a pause. What is
    to hold for a queue whoever works on it is a rule of that queue.
    """

    def __init__(self, store: Store, *, clock: Clock | None = None) -> None:
        self.store = store
        self._clock = clock or SystemClock()

    # How it stands

    async def workers(self) -> list[WorkerView]:
        """All processes, the oldest first, and whether they are well."""
        now_ms = await self.store.now_ms()
        return [view_of(row, now_ms) for row in await self.store.processes()]

    async def supervisors(self) -> list[SupervisorRow]:
        """Those that live, or that are gone without having been stopped (`is_gone`)."""
        return read_supervisors(await self.store.notes(NOTES))

    async def statistics(self, hours: float = 1.0) -> SystemFigures:
        """Totals, queues, workers, and what ended by the minute.

        Raises:
            MisuseError: `hours` is not above zero.
        """
        if not hours > 0:
            raise MisuseError(f"hours is {hours}", hint="give a number above zero")
        store = self.store
        return system_of(
            await store.queue_figures(),
            await store.throughput(hours),
            await store.processes(),
            {rules.name: rules for rules in await store.queue_rules()},
            await store.now_ms(),
        )

    async def why(self, queue: str) -> list[str]:
        """Why a queue does not move, one sentence a reason; if it does, one sentence says so."""
        store = self.store
        rules = {rules.name: rules for rules in await store.queue_rules()}
        figures = {row.queue: row for row in await store.queue_figures()}
        return reasons(
            Facts(
                queue=queue,
                rules=rules.get(queue) or QueueRules(name=queue),
                figures=figures.get(queue),
                flows=await store.survey([queue]),
                processes=await store.processes(),
                limits=await store.limits(),
                waiting=await store.find(JobFilter(queue=queue, states=WAITING), limit=_SAMPLE),
                running=await store.find(
                    JobFilter(queue=queue, states=(JobState.RUNNING,)), limit=_SAMPLE
                ),
                now_ms=await store.now_ms(),
            )
        )

    # Alerts

    async def alerts(self) -> list[Alert]:
        """Those that are open, the oldest first, as of the last time somebody looked."""
        found = [alert for alert in await read_alerts(self.store) if alert.is_open]
        return sorted(found, key=lambda alert: alert.opened_ms or 0)

    async def alert_rules(self) -> tuple[AlertRule, ...]:
        """Those that hold.

        Raises:
            MisuseError: Another version wrote them.
        """
        return await read_rules(self.store)

    async def set_alert_rules(self, rules: Iterable[AlertRule] | None) -> None:
        """Has these rules hold for everybody, in place of all others; `None`: the default ones.

        Raises:
            MisuseError: Two are for the same thing.
        """
        await write_rules(self.store, None if rules is None else tuple(rules))

    # Orders

    async def pause(self, target: str = "all", *, wait_s: float = 5.0) -> Told:
        """Has processes begin nothing more; what is under way goes on.

        Args:
            target: `all`, `node:HOST`, `supervisor:NAME` or `process:ID`.
            wait_s: How long to wait for answers.

        Raises:
            MisuseError: The target is none of these.
            ConflictError: Nobody alive is addressed.
        """
        return await self._order(Action.PAUSE, target, wait_s)

    async def resume(self, target: str = "all", *, wait_s: float = 5.0) -> Told:
        """Has paused processes go on. Otherwise as `pause`."""
        return await self._order(Action.RESUME, target, wait_s)

    async def reset_breakers(self, target: str = "all", *, wait_s: float = 5.0) -> Told:
        """Has processes try all kinds again. Otherwise as `pause`."""
        return await self._order(Action.RESET_BREAKERS, target, wait_s)

    async def drain(self, target: str = "all", *, wait_s: float = 5.0) -> Told:
        """Has processes and supervisors end what is under way, and leave. Otherwise as `pause`."""
        return await self._order(Action.DRAIN, target, wait_s)

    async def stop(self, target: str = "all", *, wait_s: float = 5.0) -> Told:
        """As `drain`; given twice, supervisors have their processes hurry."""
        return await self._order(Action.STOP, target, wait_s)

    async def restart(self, target: str = "all", *, wait_s: float = 5.0) -> Told:
        """Has processes be replaced, those of a supervisor one after the other.

        A process that nobody watches over only leaves. Otherwise as `pause`.
        """
        return await self._order(Action.RESTART, target, wait_s)

    async def scale(self, processes: int, target: str = "all", *, wait_s: float = 5.0) -> Told:
        """Has each supervisor addressed keep so many processes. Otherwise as `pause`."""
        return await self._order(Action.SCALE, target, wait_s, processes)

    async def start(self, processes: int = 1, target: str = "all", *, wait_s: float = 5.0) -> Told:
        """Has each supervisor addressed start so many more. Otherwise as `pause`."""
        return await self._order(Action.START, target, wait_s, processes)

    async def _order(
        self, action: Action, target: str, wait_s: float, argument: int | None = None
    ) -> Told:
        _check(target)
        targets, addressed = await self._addressed(action, target)
        if not addressed:
            who = "supervisor" if action in _FOR_SUPERVISORS else "process"
            raise ConflictError(
                f"no {who} alive is addressed by {target!r}",
                hint="look at workers() and supervisors() for who is there",
            )
        commands = {
            one: await self.store.command(NewCommand(action=action, target=one, argument=argument))
            for one in targets
        }
        answers = await self._collect(action, commands, addressed, wait_s)
        heard = {answer.by for answer in answers}
        return Told(
            action=action,
            commands=tuple(commands.values()),
            answers=answers,
            silent=tuple(sorted(addressed - heard)),
        )

    async def _addressed(self, action: Action, target: str) -> tuple[list[str], set[str]]:
        """To whom commands have to go, and who is to answer them."""
        now_ms = await self.store.now_ms()
        alive = [row for row in await self.store.processes() if not row.expired]
        watching = [row for row in await self.supervisors() if not row.is_gone(now_ms)]
        processes = [row for row in alive if _is_meant(target, row)]
        supervisors = [
            f"supervisor:{row.name}"
            for row in watching
            if target in ("all", f"node:{row.host}", f"supervisor:{row.name}")
        ]
        if action in _FOR_SUPERVISORS:
            return [target], set(supervisors)
        if target.startswith("process:"):
            return [target], {f"process:{row.id}" for row in processes}
        if action is Action.RESTART:
            # One after the other is a supervisor's to see to: its processes are not told.
            watched = {row.name for row in watching}
            alone = [f"process:{row.id}" for row in processes if row.supervisor not in watched]
            return [*supervisors, *alone], {*supervisors, *alone}
        if target.startswith("supervisor:"):
            if action in _FOR_BOTH:
                return [target], set(supervisors)
            own = [f"process:{row.id}" for row in processes]
            return own, set(own)
        answering = {f"process:{row.id}" for row in processes}
        return [target], answering | set(supervisors if action in _FOR_BOTH else ())

    async def _collect(
        self, action: Action, commands: Mapping[str, int], addressed: set[str], wait_s: float
    ) -> list[Answer]:
        """The answers to commands, given by target."""
        until_s = self._clock.monotonic_s() + wait_s
        while True:
            found = [
                answer for one in commands.values() for answer in await self.store.answers(one)
            ]
            missing = addressed - {answer.by for answer in found}
            if missing and action in _ENDING:
                found += await self._left(commands, missing)
                missing = addressed - {answer.by for answer in found}
            if not missing or self._clock.monotonic_s() >= until_s:
                return sorted(found, key=lambda answer: answer.at_ms)
            await self._clock.sleep_s(_LOOK_S)

    async def _left(self, commands: Mapping[str, int], missing: set[str]) -> list[Answer]:
        """Answers for processes that were gone before they had given one."""
        there = {f"process:{row.id}" for row in await self.store.processes()}
        now_ms = await self.store.now_ms()
        to_all = next(iter(commands.values()))  # where somebody was not told alone there is one
        return [
            Answer(
                command_id=commands.get(by, to_all),
                by=by,
                done=True,
                text="it has left",
                at_ms=now_ms,
            )
            for by in sorted(missing - there)
            if by.startswith("process:")
        ]


def _is_meant(target: str, row: ProcessRow) -> bool:
    return target in (
        "all",
        f"node:{row.host}",
        f"process:{row.id}",
        f"supervisor:{row.supervisor}",
    )


def _check(target: str) -> None:
    kind, _, name = target.partition(":")
    named = kind in ("node", "supervisor") and name
    if target == "all" or named or (kind == "process" and name.isdecimal() and name.isascii()):
        return
    raise MisuseError(
        f"{target!r} is nobody who can be told anything",
        hint="give all, node:HOST, supervisor:NAME or process:ID",
    )
