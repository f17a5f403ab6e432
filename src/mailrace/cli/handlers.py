"""Finding a program's handlers: `module:attribute`, from the folder where the command runs."""

import sys
import traceback
from importlib import import_module
from pathlib import Path
from types import ModuleType

from mailrace.errors import MisuseError
from mailrace.jobs import Handlers

_LIKE = "write it like tasks:handlers, for handlers = Handlers() in tasks.py"


def load_handlers(app: str) -> Handlers:
    """Imports what `module:attribute` names.

    Raises:
        MisuseError: There is no such module or attribute, it is something else, or the module
            fails when it is imported.
    """
    module_name, _, path = app.partition(":")
    if not module_name or not all(part.isidentifier() for part in path.split(".")):
        raise MisuseError(f"{app!r} names no handlers", hint=_LIKE)
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    module = _imported(module_name)
    found = _attribute(module, path)
    if not isinstance(found, Handlers):
        raise MisuseError(
            f"{app} is {_article(type(found).__name__)}, no Handlers", hint=_there_are(module)
        )
    if not list(found):
        raise MisuseError(
            f"{app} has no kinds, so there is nothing to work on",
            hint="register functions with @handlers.register(…) in that module",
        )
    return found


def _imported(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise MisuseError(
                f"there is no module {error.name!r}",
                hint=f"it is looked for in {Path.cwd()} and in the environment of this Python",
            ) from error
        raise _failed(name, error) from error
    except (Exception, SystemExit) as error:
        raise _failed(name, error) from error


def _failed(name: str, error: BaseException) -> MisuseError:
    """What the traceback says at its end, and where."""
    text = traceback.format_exception_only(error)[-1].strip()
    where = f"{error.filename}, line {error.lineno}" if isinstance(error, SyntaxError) else ""
    for frame in traceback.extract_tb(error.__traceback__):
        if "importlib" not in frame.filename and frame.filename != __file__ and not where:
            where = f"{frame.filename}, line {frame.lineno}"
    return MisuseError(
        f"the module {name!r} cannot be imported: {' '.join(text.split())}",
        hint=f"look at {where}" if where else "",
    )


def _attribute(module: ModuleType, path: str) -> object:
    found: object = module
    for part in path.split("."):
        if not hasattr(found, part):
            raise MisuseError(
                f"the module {module.__name__!r} has no {path!r}", hint=_there_are(module)
            )
        found = getattr(found, part)
    return found


def _there_are(module: ModuleType) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, Handlers)]
    if not names:
        return f"there are no Handlers in it; {_LIKE}"
    return f"there is {', '.join(f'{module.__name__}:{name}' for name in names)}"


def _article(noun: str) -> str:
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"
