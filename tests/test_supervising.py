"""What a supervisor was set to its processes are set to."""

from pathlib import Path

from mailrace.cli.supervising import _variables
from mailrace.settings import Settings, load_settings

ONLY_SEND = {"via", "rate", "workers", "retry"}
ONLY_SUPERVISOR = {"processes", "target"}
# Nothing as it is by default: what is not handed on would not be missed otherwise.
SET = Settings(
    via="smtp://relay.example",
    store="postgresql://ann@db.example/app",
    rate="1/s",
    workers=2,
    buffer=3,
    retry="1s",
    journals="/var/lib/journals",
    redis="redis://cache",
    keys="k1:secret",
    sealed_only=True,
    queues="mail:3,reports",
    processes=4,
    target="10000/h",
    concurrency=5,
    grace=6.5,
    memory="512M",
    lease=7.5,
    heartbeat=0.25,
    keep="completed=7d",
    verbose=True,
)


def by_name(settings: Settings) -> dict[str, object]:
    return {name: getattr(settings, name) for name in settings.__struct_fields__}


def read_by_a_process(settings: Settings, folder: Path) -> Settings:
    return load_settings(flags={}, environment=_variables(settings), folder=folder)


def test_every_setting_of_a_process_is_handed_on(tmp_path: Path) -> None:
    given, read = by_name(SET), by_name(read_by_a_process(SET, tmp_path))
    assert [name for name, value in by_name(Settings()).items() if value == given[name]] == []
    lost = {name for name, value in read.items() if value != given[name]}
    assert lost == ONLY_SEND | ONLY_SUPERVISOR


def test_what_is_not_set_is_not_handed_on(tmp_path: Path) -> None:
    assert read_by_a_process(Settings(), tmp_path) == Settings()
    assert {"MAILRACE_KEYS", "MAILRACE_MEMORY", "MAILRACE_HEARTBEAT"}.isdisjoint(
        _variables(Settings())
    )


def test_what_is_switched_off_is_off_in_the_processes_too(tmp_path: Path) -> None:
    (tmp_path / "mailrace.toml").write_text("verbose = true\n", encoding="utf-8")
    assert not read_by_a_process(Settings(verbose=False), tmp_path).verbose
