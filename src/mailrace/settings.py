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
    }
)
"""Names that other programs use for the same settings."""
_WHOLE: Final = ("workers", "buffer")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a flag, the environment or `mailrace.toml` can set.

    Attributes:
        via: Provider URL: `smtp://…`, `smtps://…` or `sandbox:FOLDER`.
        store: `sqlite:///PATH`.
        rate: `100/s`, `100/min` …, or `none`; all workers together.
        workers: Messages under way at the same time.
        buffer: Messages at most that a process has claimed and not begun.
        retry: Delays after temporary refusals: `5m,15m`, or `none`.
    """

    via: str | None = None
    store: str = DEFAULT_STORE
    rate: str = "10/s"
    workers: int = 5
    buffer: int = 1000
    retry: str = "5m,15m,45m,135m"

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= 10_000:
            raise MisuseError(f"{self.workers} workers cannot be", hint="give 1 to 10000")
        if not 1 <= self.buffer <= 100_000:
            raise MisuseError(f"a buffer of {self.buffer} cannot be", hint="give 1 to 100000")


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
                values[setting] = _whole(name, text) if setting in _WHOLE else text
                break
    if "via" not in values and environment.get("SMTP_HOST"):
        values["via"] = _smtp_url(environment)
    return values


def _whole(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise MisuseError(f"{name} is {text!r}", hint="give a whole number")
    return int(text)


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
        raise MisuseError(f"{where} cannot be used: {error}") from error
