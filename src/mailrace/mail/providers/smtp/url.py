"""`smtp://user:secret@relay.example:587?tls=required` to settings."""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from mailrace.errors import MisuseError
from mailrace.mail.providers.smtp.settings import Auth, SmtpSettings, Timeouts, Tls, is_loopback

_ENCODE: Final = "write / ? # @ and : in user or password as %2F %3F %23 %40 and %3A"


def parse_smtp_url(url: str) -> SmtpSettings:
    """Reads a provider URL, `smtp://` (STARTTLS) or `smtps://` (TLS from the first byte).

    Without a port: 465 for smtps; for smtp 25 on loopback hosts and with `tls=off`, else 587.
    Query keys: tls, verify, ca, auth, auth-in-clear, hello, messages, idle, connections, timeout
    (seconds for an ordinary reply; the other stages keep RFC 5321's proportions to it),
    pipelining, chunking.

    Raises:
        MisuseError: One line that says what is wrong; it never contains user or password.
    """
    parts = _split(url)
    options = _options(parts.query)
    host = parts.hostname or ""
    if not host:
        raise MisuseError("SMTP URL has no host", hint="write smtp://relay.example:587")
    tls = _tls(parts.scheme, host, options)
    return SmtpSettings(
        host=host,
        port=_port(parts) or _default_port(host, tls),
        tls=tls,
        user=_decoded(parts.username, "user"),
        password=_decoded(parts.password, "password"),
        **{_FIELDS[key][0]: _FIELDS[key][1](key, text) for key, text in options.items()},
    )


def _split(url: str) -> SplitResult:
    # Characters that urlsplit strips in silence, so that what it sees is what was written.
    if not url.isprintable() or " " in url:
        raise MisuseError("SMTP URL contains spaces or control characters", hint=_ENCODE)
    try:
        parts = urlsplit(url)
    except ValueError:
        raise MisuseError("SMTP URL cannot be read", hint=_ENCODE) from None
    if parts.scheme not in {"smtp", "smtps"}:
        raise MisuseError("not an SMTP URL", hint="begin it with smtp:// or smtps://")
    # An unencoded / ? or # in the password ends the host early and leaves an @ behind. Anything
    # printed from such a URL could be a piece of the password.
    if "@" in parts.path + parts.query + parts.fragment:
        raise MisuseError("SMTP URL has an @ after the host", hint=_ENCODE)
    if parts.path not in {"", "/"} or parts.fragment:
        raise MisuseError("SMTP URL has something between host and ?", hint=_ENCODE)
    return parts


def _port(parts: SplitResult) -> int | None:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise MisuseError("SMTP port is not a number between 1 and 65535", hint=_ENCODE) from None
    return port


def _decoded(text: str | None, name: str) -> str:
    try:
        return unquote(text or "", errors="strict")
    except UnicodeDecodeError:
        raise MisuseError(f"SMTP {name} is not UTF-8 when percent-decoded") from None


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        name, _, text = pair.partition("=")
        key, value = unquote(name), unquote(text)
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(_KEYS)}"
            raise MisuseError(f"SMTP URL has an unknown key {key!r}", hint=hint)
        if key in options:
            raise MisuseError(f"SMTP URL has {key} twice")
        if not value:
            raise MisuseError(f"SMTP URL has {key} without a value", hint=f"write {key}=VALUE")
        options[key] = value
    return options


def _tls(scheme: str, host: str, options: dict[str, str]) -> Tls:
    """Takes `tls` out of the options."""
    text = options.pop("tls", None)
    if scheme == "smtps":
        if text not in {None, "required"}:
            raise MisuseError(f"tls={text} contradicts smtps://", hint="use smtp:// with it")
        return Tls.IMPLICIT
    if text is None:
        return Tls.OPPORTUNISTIC if is_loopback(host) else Tls.REQUIRED
    if text not in _TLS:
        raise _not_one_of("tls", text, _TLS)
    return Tls(text)


def _default_port(host: str, tls: Tls) -> int:
    if tls is Tls.IMPLICIT:
        return 465
    return 25 if tls is Tls.OFF or is_loopback(host) else 587


def _not_one_of(key: str, text: str, allowed: Sequence[str]) -> MisuseError:
    return MisuseError(f"{key}={text!r} is not known", hint=f"use {' or '.join(allowed)}")


def _switch(key: str, text: str) -> bool:
    match text.lower():
        case "on" | "yes" | "true" | "1":
            return True
        case "off" | "no" | "false" | "0":
            return False
        case _:
            raise _not_one_of(key, text, ("on", "off"))


def _auth(key: str, text: str) -> Auth:
    try:
        return Auth(text.lower())
    except ValueError:
        raise _not_one_of(key, text, tuple(Auth)) from None


def _count(key: str, text: str) -> int:
    number = int(text) if len(text) < 10 and text.isascii() and text.isdigit() else 0
    if number < 1:
        raise MisuseError(f"{key}={text!r} is not a whole number from 1 up")
    return number


def _seconds(key: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise MisuseError(f"{key}={text!r} is not a number of seconds above 0")
    return seconds


def _path(_key: str, text: str) -> Path:
    return Path(text)


def _text(_key: str, text: str) -> str:
    return text


def _timeouts(key: str, text: str) -> Timeouts:
    return Timeouts().scaled_to(_seconds(key, text))


_TLS: Final = ("required", "opportunistic", "off")
_FIELDS: Final[Mapping[str, tuple[str, Callable[[str, str], Any]]]] = MappingProxyType(
    {
        "verify": ("verify", _switch),
        "ca": ("ca_file", _path),
        "auth": ("auth", _auth),
        "auth-in-clear": ("auth_in_clear", _switch),
        "hello": ("hello", _text),
        "messages": ("messages", _count),
        "idle": ("idle_s", _seconds),
        "connections": ("connections", _count),
        "timeout": ("timeouts", _timeouts),
        "pipelining": ("pipelining", _switch),
        "chunking": ("chunking", _switch),
    }
)
_KEYS: Final = ("tls", *_FIELDS)
