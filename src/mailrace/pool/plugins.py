"""Plugins: what a program wants to have done around every attempt."""

import inspect
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Final

from mailrace.errors import MisuseError
from mailrace.pool.job import Job

AnyJob = Job[Any]
Execute = Callable[[AnyJob], Awaitable[object]]


class Plugin:
    """Base of plugins; override what you need. All of it runs on the loop, in the job's context.

    A plugin that raises in `before` or `around` fails the attempt, so that it can refuse a job;
    what `after` and `error` raise is counted (`plugin_faults`) and changes nothing.
    """

    def before(self, job: AnyJob) -> None:
        """The attempt is about to begin."""

    def after(self, job: AnyJob, value: object) -> None:
        """The function returned."""

    def error(self, job: AnyJob, error: BaseException) -> None:
        """The function raised, or was cancelled."""

    async def around(
        self,
        job: AnyJob,  # noqa: ARG002 - for those who override it
        proceed: Callable[[], Awaitable[object]],
    ) -> object:
        """Wraps the attempt: has to await `proceed()` and return what it brings."""
        return await proceed()


class Plugins:
    """All plugins of a pool; the first one is the outermost.

    Args:
        on_fault: Called with what a plugin raised where it must not.
    """

    def __init__(
        self, plugins: tuple[Plugin, ...], on_fault: Callable[[BaseException], None]
    ) -> None:
        self._plugins = plugins
        self._on_fault = on_fault
        # Nothing is called that nobody has overridden.
        self._befores = [p.before for p in plugins if _overrides(p, "before")]
        self._afters = [p.after for p in reversed(plugins) if _overrides(p, "after")]
        self._errors = [p.error for p in reversed(plugins) if _overrides(p, "error")]
        self._arounds = [p.around for p in plugins if _overrides(p, "around")]

    def __bool__(self) -> bool:
        return bool(self._plugins)

    async def run(self, job: AnyJob, execute: Execute) -> object:
        """Runs one attempt with all plugins around it."""
        try:
            for before in self._befores:
                before(job)
            if self._arounds:
                value = await self._wrapped(job, execute)
            else:
                value = await execute(job)
        except BaseException as error:
            self._tell(self._errors, job, error)
            raise
        self._tell(self._afters, job, value)
        return value

    def _wrapped(self, job: AnyJob, execute: Execute) -> Awaitable[object]:
        proceed: Callable[[], Awaitable[object]] = partial(execute, job)
        for around in reversed(self._arounds):
            proceed = partial(around, job, proceed)
        return proceed()

    def _tell(self, hooks: list[Any], job: AnyJob, result: object) -> None:
        for hook in hooks:
            try:
                hook(job, result)
            except (Exception, CancelledError) as error:  # noqa: BLE001 - its fault, not the job's
                self._on_fault(error)


_PLAIN: Final = {
    "before": "self, job",
    "after": "self, job, value",
    "error": "self, job, error",
}
_NOT_PLAIN: Final = (
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
    inspect.isasyncgenfunction,
)


def _overrides(plugin: Plugin, name: str) -> bool:
    return getattr(type(plugin), name) is not getattr(Plugin, name)


def checked(plugins: object) -> tuple[Plugin, ...]:
    """Plugins, one or many.

    Raises:
        MisuseError: There is something else among them, or one with a method of the wrong sort.
    """
    given = tuple(plugins) if isinstance(plugins, Iterable) else (plugins,)
    for plugin in given:
        if not isinstance(plugin, Plugin):
            raise MisuseError(
                f"plugin {plugin!r} is none", hint="give objects of classes derived from Plugin"
            )
        _check_hooks(plugin)
    return given


def _check_hooks(plugin: Plugin) -> None:
    """Refuses hooks that would never run, or whose result nobody could await."""
    for name, arguments in _PLAIN.items():
        hook = getattr(plugin, name)
        if _overrides(plugin, name) and any(is_other(hook) for is_other in _NOT_PLAIN):
            raise MisuseError(
                f"{type(plugin).__name__}.{name} is no plain method, and would never run",
                hint=f"write def {name}({arguments}); what has to be awaited belongs into around",
            )
    if _overrides(plugin, "around") and not inspect.iscoroutinefunction(plugin.around):
        raise MisuseError(
            f"{type(plugin).__name__}.around is no coroutine function",
            hint="write async def around(self, job, proceed), with return await proceed() in it",
        )
