"""Settings: flags over environment over file, checked as a whole."""

from pathlib import Path

import pytest

from mailrace.errors import MisuseError
from mailrace.settings import Settings, load_settings


def load(
    folder: Path, *, environment: dict[str, str] | None = None, **flags: str | int | None
) -> Settings:
    return load_settings(flags=flags, environment=environment or {}, folder=folder)


def test_defaults(tmp_path: Path) -> None:
    assert load(tmp_path) == Settings(
        via=None,
        store="sqlite:///mailrace.db",
        rate="10/s",
        workers=5,
        buffer=1000,
        retry="5m,15m,45m,135m",
        redis=None,
        keys=None,
        queues="*",
        processes=None,
        target=None,
        concurrency=20,
        grace=30.0,
        memory=None,
        lease=25.0,
        heartbeat=None,
        keep="",
        verbose=False,
        sealed_only=False,
    )


def test_flags_over_environment_over_file(tmp_path: Path) -> None:
    (tmp_path / "mailrace.toml").write_text('rate = "1/s"\nretry = "1s"\nworkers = 1\n')
    environment = {"MAILRACE_RATE": "2/s", "MAILRACE_RETRY": "2s"}
    settings = load(tmp_path, environment=environment, rate="3/s", retry=None)
    assert (settings.rate, settings.retry, settings.workers) == ("3/s", "2s", 1)


@pytest.mark.parametrize(
    ("environment", "setting", "value"),
    [
        ({"DATABASE_URL": "sqlite:///d.db"}, "store", "sqlite:///d.db"),
        (
            {"DATABASE_URL": "sqlite:///d.db", "MAILRACE_STORE": "sqlite:///m.db"},
            "store",
            "sqlite:///m.db",
        ),
        ({"EMAIL_WORKER_COUNT": "7"}, "workers", 7),
        ({"EMAIL_WORKER_COUNT": "7", "MAILRACE_WORKERS": "8"}, "workers", 8),
        ({"EMAIL_WORKER_BUFFER": "100"}, "buffer", 100),
        ({"MAILRACE_PROCESSES": "3"}, "processes", 3),
        ({"MAILRACE_CONCURRENCY": "50"}, "concurrency", 50),
        ({"MAILRACE_GRACE": "2.5"}, "grace", 2.5),
        ({"MAILRACE_MEMORY": "512M"}, "memory", "512M"),
        ({"MAILRACE_LEASE": "10"}, "lease", 10.0),
        ({"MAILRACE_HEARTBEAT": "0.5"}, "heartbeat", 0.5),
        ({"MAILRACE_VERBOSE": "on"}, "verbose", True),
        ({"MAILRACE_VERBOSE": "False"}, "verbose", False),
        ({"MAILRACE_SEALED_ONLY": "yes"}, "sealed_only", True),
        ({"MAILRACE_QUEUES": "mail:3,reports"}, "queues", "mail:3,reports"),
        ({"MAILRACE_REDIS": "redis://cache"}, "redis", "redis://cache"),
        ({"MAILRACE_KEYS": "k1:secret"}, "keys", "k1:secret"),
        ({"MAILRACE_VIA": "sandbox:x", "SMTP_HOST": "h"}, "via", "sandbox:x"),
        ({"MAILRACE_RETRY": "none"}, "retry", "none"),
        ({"SMTP_HOST": "relay.example"}, "via", "smtp://relay.example"),
        ({"SMTP_HOST": "relay.example", "SMTP_PORT": "2525"}, "via", "smtp://relay.example:2525"),
        ({"SMTP_HOST": "relay.example", "SMTP_PORT": "465"}, "via", "smtps://relay.example:465"),
        ({"SMTP_HOST": "::1", "SMTP_PORT": "25"}, "via", "smtp://[::1]:25"),
        (
            {"SMTP_HOST": "h", "SMTP_USER": "ann@x", "SMTP_PASSWORD": "a/b:c@d"},
            "via",
            "smtp://ann%40x:a%2Fb%3Ac%40d@h",
        ),
        ({"SMTP_HOST": "", "MAILRACE_RATE": ""}, "via", None),
    ],
)
def test_the_environment(
    tmp_path: Path, environment: dict[str, str], setting: str, value: str | float | None
) -> None:
    assert getattr(load(tmp_path, environment=environment), setting) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('raet = "1/s"', "unknown setting 'raet'; did you mean rate?"),
        (
            "colour = 1",
            "unknown setting 'colour'; there are via, store, rate, workers, buffer, retry",
        ),
        ('workers = "many"', "mailrace.toml cannot be used"),
        ("workers = 0", "0 workers cannot be"),
        ("buffer = 0", "a buffer of 0 cannot be"),
        ("processes = 0", "0 processes cannot be"),
        ("concurrency = 0", "a concurrency of 0 cannot be"),
        ("grace = -1", "a grace of -1.0 seconds cannot be"),
        ("grace = nan", "a grace of nan seconds cannot be"),
        ('verbose = "loud"', "mailrace.toml cannot be used"),
        ("workers =", "cannot be read"),
        ("[workers]", "mailrace.toml cannot be used"),
    ],
)
def test_a_file_that_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "mailrace.toml").write_text(text)
    with pytest.raises(MisuseError) as raised:
        load(tmp_path)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["many", "-1", "1.5", "٣"])
def test_a_worker_count_that_is_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(MisuseError, match=r"EMAIL_WORKER_COUNT is .*give a whole number"):
        load(tmp_path, environment={"EMAIL_WORKER_COUNT": text})


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("MAILRACE_GRACE", "soon", "MAILRACE_GRACE is 'soon'; give seconds, like 30"),
        ("MAILRACE_LEASE", "soon", "MAILRACE_LEASE is 'soon'; give seconds, like 30"),
        ("MAILRACE_GRACE", "nan", "a grace of nan seconds cannot be"),
        ("MAILRACE_VERBOSE", "loud", "MAILRACE_VERBOSE is 'loud'; give on or off"),
        ("MAILRACE_PROCESSES", "two", "MAILRACE_PROCESSES is 'two'; give a whole number"),
    ],
)
def test_an_environment_that_is_wrong(tmp_path: Path, name: str, text: str, says: str) -> None:
    with pytest.raises(MisuseError) as raised:
        load(tmp_path, environment={name: text})
    assert str(raised.value).startswith(says)


def test_settings_cannot_be_wrong() -> None:
    with pytest.raises(MisuseError, match="10001 workers"):
        Settings(workers=10_001)
