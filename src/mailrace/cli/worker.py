"""`mailrace worker`: works off the jobs of a store, in one process or in several."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Final

from cyclopts import Group, Parameter

from mailrace.cli.duties import duties, target_per_hour
from mailrace.cli.handlers import load_handlers
from mailrace.cli.logs import log_for_people
from mailrace.cli.metrics import address
from mailrace.cli.opening import check_known, settings_for
from mailrace.cli.supervising import Crew, supervise
from mailrace.cli.working import Work, work
from mailrace.errors import MisuseError, UnavailableError
from mailrace.jobs import Sealer
from mailrace.pool.rss import read_rss_bytes
from mailrace.queue.parent import SUPERVISOR, parent_fd
from mailrace.queue.supervisor_settings import cores
from mailrace.settings import Settings
from mailrace.wiring import check_redis

# With a target and no bounds: what a throughput of some thousands an hour asks for.
_LEAST: Final = 2
_MOST: Final = 10
_WORK = Parameter(group=Group("What is worked off", sort_key=1))
_PROCESSES = Parameter(group=Group("Processes", sort_key=2))
_PROCESS = Parameter(group=Group("Each process", sort_key=3))
_WATCHED = Parameter(group=Group("How it is watched", sort_key=4))


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """What `worker` takes beside the handlers.

    Attributes:
        store: Where the jobs are, by default sqlite:///mailrace.db.
        queue: A queue, or queue:weight; may be given again. By default all of them.
        redis: A Redis beside the store, as a cache for limits and wake-ups: redis://HOST.
        keys: Opens sealed payloads: ID:BASE64, several with commas. Better as MAILRACE_KEYS.
        sealed_only: Fail jobs whose payload is not sealed.
        processes: How many processes, by default one per core; 1 works in this very process,
            unless there is a limit on memory.
        min: The smallest number, where it is to follow the work.
        max: The largest number.
        target: Jobs that should end, over all processes: 10000/h; fewer ask for more processes,
            from 2 to 10 without --min and --max.
        concurrency: Jobs under way at the same time, by default 20.
        buffer: Jobs at most that are claimed and not begun, by default 1000.
        grace: Seconds that jobs under way may take to end at a stop, by default 30.
        memory: How much memory each process may use: 512M, 1.5G; by default without a limit. One
            that stays above it ends what it has begun, and another takes its place.
        lease: Seconds that the claims of a process hold when nothing is heard of it, by default
            25; then others do its jobs.
        heartbeat: Seconds after which a process tells again that it lives, and looks whether
            others do: 0.1 to 10, less than half of --lease; by default a fifth of it, at most 5.
        keep: How long ended jobs are kept: completed=7d,failed=90d.
        verbose: Write a log line for every attempt.
        metrics: Serve metrics for Prometheus at PORT or HOST:PORT; without a host only to this
            machine.
    """

    store: Annotated[str | None, _WORK] = None
    queue: Annotated[tuple[str, ...], _WORK] = ()
    redis: Annotated[str | None, _WORK] = None
    keys: Annotated[str | None, _WORK] = None
    sealed_only: Annotated[bool, _WORK] = False
    processes: Annotated[int | None, _PROCESSES] = None
    min: Annotated[int | None, _PROCESSES] = None
    max: Annotated[int | None, _PROCESSES] = None
    target: Annotated[str | None, _PROCESSES] = None
    concurrency: Annotated[int | None, _PROCESS] = None
    buffer: Annotated[int | None, _PROCESS] = None
    grace: Annotated[float | None, _PROCESS] = None
    memory: Annotated[str | None, _PROCESS] = None
    lease: Annotated[float | None, _PROCESS] = None
    heartbeat: Annotated[float | None, _PROCESS] = None
    keep: Annotated[str | None, _PROCESS] = None
    verbose: Annotated[bool, Parameter(name=["--verbose", "-v"]), _PROCESS] = False
    metrics: Annotated[str | None, _WATCHED] = None


_DEFAULT = WorkerOptions()


def worker(app: str, /, *, options: WorkerOptions = _DEFAULT) -> int:
    """Works off jobs with the handlers of a program, until it is stopped.

    Ctrl-C or SIGTERM once: what is under way ends, the rest is handed back. Twice: at once.

    Args:
        app: The handlers, as module:attribute: tasks:handlers for handlers = Handlers() in
            tasks.py of this folder.
    """
    settings = _settings(options)
    _check(settings)
    bounds = _bounds(options, settings)
    metrics = None if options.metrics is None else address(options.metrics)
    handlers = load_handlers(app)
    say = log_for_people()
    lifeline, supervisor = _supervised(os.environ)
    processes = _processes(settings, bounds)
    # Also a single one that may have to be replaced needs somebody who does it.
    supervised = bounds is not None or processes > 1 or settings.memory is not None
    if lifeline is None and supervised:
        return supervise(
            Crew(
                app=app,
                settings=settings,
                say=say,
                processes=processes,
                bounds=bounds,
                metrics=metrics,
            )
        )
    return work(
        Work(
            handlers=handlers,
            settings=settings,
            say=say,
            supervisor=supervisor,
            lifeline=lifeline,
            metrics=metrics,
        )
    )


def _settings(options: WorkerOptions) -> Settings:
    flags = {field.name: getattr(options, field.name) for field in fields(options)}
    for name in ("queue", "min", "max", "metrics"):
        del flags[name]
    flags["queues"] = ",".join(options.queue) or None
    for switch in ("verbose", "sealed_only"):
        flags[switch] = flags[switch] or None  # without the flag the settings decide
    return settings_for(**flags)


def _bounds(options: WorkerOptions, settings: Settings) -> tuple[int, int] | None:
    """Between what the number of processes may change; `None`: it stays as it is."""
    target = settings.target is not None
    if options.min is None and options.max is None and not target:
        return None
    most = options.max
    if most is None:
        most = _MOST if target else settings.processes or cores()
        most = max(most, options.min or 1)
    least = options.min
    if least is None:
        least = min(_LEAST, most) if target else 1
    if not 1 <= least <= most:
        raise MisuseError(f"--min {least} and --max {most}", hint="give 1 <= min <= max")
    if options.processes is not None and not least <= options.processes <= most:
        raise MisuseError(
            f"--processes is {options.processes}", hint=f"give {least} to {most}, or leave it out"
        )
    return least, most


def _processes(settings: Settings, bounds: tuple[int, int] | None) -> int:
    """How many there are at first: one per core, or what the bounds ask for at least."""
    if bounds is None:
        return settings.processes or cores()
    least, most = bounds
    return min(max(settings.processes or least, least), most)


def _check(settings: Settings) -> None:
    """Whatever can be wrong with texts, so that it is said before anything is opened."""
    check_known(settings.store)
    duties(settings)
    target_per_hour(settings.target)
    Sealer.given(settings.keys, sealed_only=settings.sealed_only)
    if settings.redis:
        # Here and not in each process: a supervisor would start those again and again.
        check_redis(settings.redis)
    if settings.memory is not None:
        _check_memory()


def _check_memory() -> None:
    try:
        read_rss_bytes()
    except UnavailableError as error:
        raise MisuseError(f"--memory: {error.problem}", hint=error.hint) from error


def _supervised(environment: Mapping[str, str]) -> tuple[int | None, str]:
    """The end of the supervisor's pipe and its name, where one started this process."""
    return parent_fd(environment), environment.get(SUPERVISOR, "")
