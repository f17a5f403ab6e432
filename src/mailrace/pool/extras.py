"""Libraries that only some programs install with the pool."""

from importlib import import_module
from typing import Any

from mailrace.errors import MisuseError


def load(module: str, *, extra: str) -> Any:
    """A module of a library that `pip install 'mailrace[<extra>]'` brings.

    Raises:
        MisuseError: The library is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        library = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != library:
            raise  # it is there, and lacks something of its own
        raise MisuseError(
            f"{library} is not installed", hint=f"pip install 'mailrace[{extra}]'"
        ) from error
