"""A store as the commands open it: as the settings say, and only if it is there."""

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from mailrace.errors import MisuseError
from mailrace.jobs import Queue, open_queue
from mailrace.settings import DEFAULT_STORE, Settings, load_settings
from mailrace.wiring import describe_store, store_is_there, store_path

_T = TypeVar("_T")


def settings_for(**flags: Any) -> Settings:
    """The settings of a command: its flags over the environment over the file."""
    return load_settings(flags=flags, environment=os.environ, folder=Path())


def on_store(store: str | None, work: Callable[[Queue], Awaitable[_T]]) -> _T:
    """Opens the store that is there, does the work, closes it.

    Args:
        store: The flag `--store`, if it was given.

    Raises:
        MisuseError: There is no store: looking at one does not make it.
    """
    settings = settings_for(store=store)
    check_known(settings.store)
    check_there(settings.store)
    return asyncio.run(_on_store(settings, work))


async def _on_store(settings: Settings, work: Callable[[Queue], Awaitable[_T]]) -> _T:
    # Looking at a store needs no keys, also where those who work on it take only sealed payloads.
    sealed_only = settings.sealed_only and settings.keys is not None
    async with open_queue(settings.store, keys=settings.keys, sealed_only=sealed_only) as queue:
        return await work(queue)


def check_known(url: str) -> None:
    """Refuses what is no store, in the words of whoever works with jobs.

    Raises:
        MisuseError: Another kind of store.
    """
    try:
        store_path(url)
    except MisuseError as error:
        raise MisuseError(
            error.problem, hint=f"write --store like {DEFAULT_STORE} or postgresql://…"
        ) from error


def check_there(url: str) -> None:
    """Refuses a store that nobody has made yet.

    Raises:
        MisuseError: There is none.
    """
    if store_is_there(url):
        return
    path = store_path(url)
    if path is not None:
        raise MisuseError(
            f"there is no store at {path}",
            hint="give --store sqlite:///PATH, or make one with mailrace migrate",
        )
    raise MisuseError(
        f"there is no store in {describe_store(url)}", hint="make one with mailrace migrate"
    )


def check_journals(folder: Path) -> None:
    """Refuses a folder in which no journal can be kept, before any job is taken.

    Raises:
        MisuseError: It cannot be made, or not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise MisuseError(
            f"the folder for journals {folder} cannot be used: {error.strerror}",
            hint="set MAILRACE_JOURNALS to a folder that this user may write to",
        ) from error
