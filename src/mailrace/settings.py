"""What a run is set to: flags over environment over file, checked as a whole."""

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote

import msgspec

from mailrace.errors import MisuseError

CONFIG_FILE: Final = "mailrace.toml"
DEFAULT_STORE: Final = "sqlite:///mailrace.db"
ENVIRONMENT: Final = MappingProxyType(
    {
        "store": "DATABASE_URL",
        "workers": "EMAIL_WORKER_COUNT",
        "buffer": "EMAIL_WORKER_BUFFER",
        "redis": "REDIS_URL",
    }
)
"""Names that other programs use for the same settings."""
_WHOLE: Final = ("workers", "buffer", "processes", "concurrency")
_SECONDS: Final = ("grace", "lease", "heartbeat")
_SWITCHES: Final = ("verbose", "sealed_only")
_SWITCH: Final = MappingProxyType(
    {"1": True, "true": True, "on": True, "yes": True}
    | {"0": False, "false": False, "off": False, "no": False}
)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a flag, the environment or `mailrace.toml` can set.

    Attributes:
        via: Provider URL: `smtp://…`, `smtps://…` or `sandbox:FOLDER`.
        store: `sqlite:///PATH` or `postgresql://…`.
        rate: `100/s`, `100/min` …, or `none`; all workers together.
        workers: Messages under way at the same time.
        buffer: Messages at most that a process has claimed and not begun.
        retry: Delays after temporary refusals: `5m,15m`, or `none`.
        journals: The folder for the journals of this machine's processes; if not given, beside a
            SQLite file, and for PostgreSQL in the user's folder for state.
        redis: A Redis beside the store, as a cache for limits and wake-ups: `redis://HOST`.
        keys: Seals payloads: `ID:BASE64` of 32 bytes, several with commas, the first one seals.
        sealed_only: A payload that is not sealed is refused; needs `keys`.
        queues: What `worker` works off: `NAME` or `NAME:WEIGHT`, several with commas; all queues
            by default.
        processes: How many processes `worker` has; `None`: one per core.
        target: Jobs that should end, as a rate over all processes: `10000/h`.
        concurrency: Jobs under way at the same time in each of them.
        grace: Seconds that jobs under way may take to end when a worker is to stop.
        memory: What a worker process may use before it is replaced: `512M`.
        lease: Seconds that the claims of a worker process hold when nothing is heard of it.
        heartbeat: How often it tells that it lives, in seconds; `None`: a fifth of the lease, at
            most 5.
        keep: How long final jobs are kept, by state: `completed=7d,failed=90d`.
        verbose: A log line for every attempt.
    """

    via: str | None = None
    store: str = DEFAULT_STORE
    rate: str = "10/s"
    workers: int = 5
    buffer: int = 1000
    retry: str = "5m,15m,45m,135m"
    journals: str | None = None
    redis: str | None = None
    keys: str | None = None
    sealed_only: bool = False
    queues: str = "*"
    processes: int | None = None
    target: str | None = None
    concurrency: int = 20
    grace: float = 30.0
    memory: str | None = None
    lease: float = 25.0
    heartbeat: float | None = None
    keep: str = ""
    verbose: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= 10_000:
            raise MisuseError(f"{self.workers} workers cannot be", hint="give 1 to 10000")
        if not 1 <= self.buffer <= 100_000:
            raise MisuseError(f"a buffer of {self.buffer} cannot be", hint="give 1 to 100000")
        if self.processes is not None and not 1 <= self.processes <= 1000:
            raise MisuseError(f"{self.processes} processes cannot be", hint="give 1 to 1000")
        if not 1 <= self.concurrency <= 100_000:
            raise MisuseError(
                f"a concurrency of {self.concurrency} cannot be", hint="give 1 to 100000"
            )
        if not 0 <= self.grace <= 86_400:
            raise MisuseError(
                f"a grace of {self.grace} seconds cannot be", hint="give 0 to 86400 seconds"
            )


def load_settings(
    *, flags: Mapping[str, Any], environment: Mapping[str, str], folder: Path
) -> Settings:
    """Merges the three sources.

    The environment is `MAILRACE_` and the setting's name; where that is not set, the names in
    `ENVIRONMENT` and, for `via`, the parts `SMTP_HOST`, `SMTP_PORT`, `SMTP_USER` and
    `SMTP_PASSWORD`.

    Args:
        flags: By setting; `None` for a flag that was not given.
        folder: Where `mailrace.toml` is looked for.

    Raises:
        MisuseError: An unknown key (with the nearest name), or a value of the wrong kind.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    values = _from_file(folder / CONFIG_FILE) | _from_environment(environment) | given
    return settings_of(values)


def _from_file(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise MisuseError(f"{path} cannot be read: {error}", hint="mend or remove it") from error
    for key in values:
        if key not in Settings.__struct_fields__:
            near = difflib.get_close_matches(key, Settings.__struct_fields__, n=1)
            known = ", ".join(Settings.__struct_fields__)
            hint = f"did you mean {near[0]}?" if near else f"there are {known}"
            raise MisuseError(f"{path} has an unknown setting {key!r}", hint=hint)
    settings_of(values, str(path))
    return values


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for setting in Settings.__struct_fields__:
        for name in (f"MAILRACE_{setting.upper()}", ENVIRONMENT.get(setting, "")):
            if text := environment.get(name):
                values[setting] = _read(setting, name, text)
                break
    if "via" not in values and environment.get("SMTP_HOST"):
        values["via"] = _smtp_url(environment)
    return values


def _read(setting: str, name: str, text: str) -> object:
    if setting in _WHOLE:
        return _whole(name, text)
    if setting in _SECONDS:
        return _seconds(name, text)
    return _switch(name, text) if setting in _SWITCHES else text


def _whole(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise MisuseError(f"{name} is {text!r}", hint="give a whole number")
    return int(text)


def _seconds(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise MisuseError(f"{name} is {text!r}", hint="give seconds, like 30") from None


def _switch(name: str, text: str) -> bool:
    try:
        return _SWITCH[text.lower()]
    except KeyError:
        raise MisuseError(f"{name} is {text!r}", hint="give on or off") from None


def _smtp_url(environment: Mapping[str, str]) -> str:
    host = environment["SMTP_HOST"]
    host = f"[{host}]" if ":" in host else host
    port = environment.get("SMTP_PORT", "")
    user, password = environment.get("SMTP_USER", ""), environment.get("SMTP_PASSWORD", "")
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
    scheme = "smtps" if port == "465" else "smtp"
    return f"{scheme}://{login}{host}" + (f":{port}" if port else "")


def settings_of(values: Mapping[str, Any], where: str = "the settings") -> Settings:
    """Checks values by name.

    Raises:
        MisuseError: A value is of the wrong kind.
    """
    try:
        return msgspec.convert(values, Settings)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, MisuseError):
            raise error.__cause__ from None
        raise MisuseError(
            f"{where} cannot be used: {error}", hint="give a value of the kind that is asked for"
        ) from error
