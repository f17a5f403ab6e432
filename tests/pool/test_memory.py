"""The ladder that a pool climbs as memory runs out, and what the system says of memory."""

import mmap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrace.errors import MisuseError, UnavailableError
from mailrace.pool.memory import Ladder, MemorySettings, Rung
from mailrace.pool.rss import Cgroup, cgroup_limit_bytes, read_rss_bytes

LIMIT = MemorySettings(process_max_bytes=1000)


def used_bytes(root: Path) -> int | None:
    group = Cgroup.find(root)
    return group.used_bytes() if group else None


def climbed(*samples_bytes: int, settings: MemorySettings = LIMIT) -> list[Rung]:
    ladder = Ladder(settings)
    return [ladder.seen(used_bytes) for used_bytes in samples_bytes]


def test_each_rung_begins_at_its_share_of_the_limit() -> None:
    for used_bytes, rung in [
        (0, Rung.NORMAL),
        (799, Rung.NORMAL),
        (800, Rung.STOP_SOURCES),
        (899, Rung.STOP_SOURCES),
        (900, Rung.REFUSE),
        (999, Rung.REFUSE),
        (1000, Rung.SHED),
        (5000, Rung.SHED),
    ]:
        assert climbed(used_bytes) == [rung]


def test_a_rung_is_left_only_when_use_has_fallen_clearly_below_it() -> None:
    normal, stop, refuse, shed = Rung
    assert climbed(1000, 950, 949, 850, 849, 750, 749) == [
        *(shed, shed, refuse, refuse, stop, stop, normal),
    ]
    assert climbed(799, 800, 799, 760, 750, 749, 799) == [
        *(normal, stop, stop, stop, stop, normal, normal),
    ]
    assert climbed(2000, 0) == [shed, normal]


def test_the_rungs_are_ordered() -> None:
    assert Rung.NORMAL < Rung.STOP_SOURCES < Rung.REFUSE < Rung.SHED


shares = st.lists(
    st.floats(0.01, 1.0), min_size=3, max_size=3, unique_by=lambda share: round(share, 3)
).map(sorted)


@given(
    shares=shares,
    give=st.floats(0, 0.99),
    limit_bytes=st.integers(1000, 10**12),
    samples=st.lists(st.floats(0, 1.5), min_size=1, max_size=40),
)
def test_the_ladder_climbs_at_once_and_recovers_by_itself(
    shares: list[float], give: float, limit_bytes: int, samples: list[float]
) -> None:
    stop, refuse, shed = shares
    settings = MemorySettings(
        process_max_bytes=limit_bytes,
        stop_sources=stop,
        refuse=refuse,
        shed=shed,
        hysteresis=give * stop,
    )
    ladder, before = Ladder(settings), Rung.NORMAL
    begins = dict(zip(Rung, (0.0, *shares), strict=True))
    for sample in samples:
        used_bytes = int(sample * limit_bytes)
        rung = ladder.seen(used_bytes)
        assert rung is ladder.rung
        reached = max(one for one in Rung if used_bytes >= begins[one] * limit_bytes)
        assert rung >= reached
        if rung > before:
            assert rung is reached
        if rung > reached:  # held by the hysteresis, which never holds what was not there
            assert rung <= before
            assert used_bytes >= (begins[rung] - settings.hysteresis) * limit_bytes
        before = rung
    assert ladder.seen(0) is Rung.NORMAL


@pytest.mark.parametrize(
    ("settings", "cgroup_bytes", "limit_bytes"),
    [
        (MemorySettings(), None, None),
        (MemorySettings(), 1000, 900),
        (MemorySettings(share_of_cgroup=0.25), 1000, 250),
        (MemorySettings(process_max_bytes=700), 1000, 700),
        (MemorySettings(process_max_bytes=950), 1000, 900),
        (MemorySettings(process_max_bytes=700), None, 700),
        (MemorySettings(process_max_bytes=5000, share_of_cgroup=None), 1000, 5000),
        (MemorySettings(share_of_cgroup=None), 1000, None),
    ],
)
def test_the_lesser_of_the_known_limits_holds(
    settings: MemorySettings, cgroup_bytes: int | None, limit_bytes: int | None
) -> None:
    assert settings.limit_bytes(cgroup_bytes) == limit_bytes
    ladder = Ladder(settings, cgroup_bytes=cgroup_bytes)
    assert ladder.limit_bytes == limit_bytes
    if limit_bytes is None:
        assert ladder.seen(1 << 62) is Rung.NORMAL
    else:
        assert ladder.seen(limit_bytes) is Rung.SHED


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"process_max_bytes": 0}, "process_max_bytes is 0;"),
        ({"process_max_bytes": "1GB"}, "process_max_bytes is '1GB'; give a whole number"),
        ({"process_max_bytes": True}, "process_max_bytes is True;"),
        ({"process_max_bytes": 1e9}, "process_max_bytes is 1000000000.0;"),
        ({"share_of_cgroup": 1.1}, "share_of_cgroup is 1.1;"),
        ({"share_of_cgroup": 0.0}, "share_of_cgroup is 0.0; give a share above 0"),
        ({"share_of_cgroup": "0.5"}, "share_of_cgroup is '0.5';"),
        ({"refuse": 0.7}, "stop_sources 0.8, refuse 0.7 and shed 1.0 are no ladder;"),
        ({"refuse": 1.0}, "stop_sources 0.8, refuse 1.0 and shed 1.0 are no ladder;"),
        ({"refuse": "0.9"}, "refuse is '0.9'; give a number"),
        ({"stop_sources": 0.0}, "stop_sources is 0.0; give a share above 0"),
        ({"stop_sources": None}, "stop_sources is None;"),
        ({"shed": 1.2}, "shed is 1.2;"),
        ({"shed": True}, "shed is True;"),
        ({"shed": float("nan")}, "shed is nan;"),
        ({"hysteresis": 0.8}, "hysteresis cannot be 0.8;"),
        ({"hysteresis": -0.1}, "hysteresis is -0.1;"),
        ({"hysteresis": float("nan")}, "hysteresis is nan;"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(MisuseError) as caught:
        MemorySettings(**values)
    assert str(caught.value).startswith(message)
    assert caught.value.hint


def system(root: Path, groups: str, files: dict[str, str]) -> Path:
    """A root folder with the files of `/proc` and `/sys` that are asked for."""
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    return root


V2_STATISTICS = "anon 700\nfile 250\ninactive_anon 1\nactive_anon 2\ninactive_file 200\nslab 1\n"
V1_STATISTICS = "cache 9\ninactive_file 1\ntotal_cache 250\ntotal_inactive_file 30\n"


def test_the_resident_pages_are_told_in_bytes(tmp_path: Path) -> None:
    statm = tmp_path / "statm"
    statm.write_text("56000 4321 1800 700 0 30000 0\n")
    assert read_rss_bytes(str(statm)) == 4321 * mmap.PAGESIZE


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux tells it")
def test_memory_that_is_taken_and_given_back_is_seen() -> None:
    before_bytes = read_rss_bytes()
    with mmap.mmap(-1, 64 << 20) as memory:
        memory.write(b"x" * (64 << 20))
        during_bytes = read_rss_bytes()
    assert 60 << 20 < during_bytes - before_bytes < 200 << 20
    assert read_rss_bytes() < during_bytes - (50 << 20)


@pytest.mark.parametrize("text", [None, "", "1", "1 pages"])
def test_a_system_that_does_not_tell_is_unavailable(tmp_path: Path, text: str | None) -> None:
    statm = tmp_path / "statm"
    if text is not None:
        statm.write_text(text)
    with pytest.raises(UnavailableError, match="does not tell the memory of the process"):
        read_rss_bytes(str(statm))


def test_version_2_tells_limit_and_use_without_the_page_cache_that_can_go(tmp_path: Path) -> None:
    root = system(
        tmp_path,
        "0::/\n",
        {
            "sys/fs/cgroup/memory.max": "1000\n",
            "sys/fs/cgroup/memory.current": "960\n",
            "sys/fs/cgroup/memory.stat": V2_STATISTICS,
        },
    )
    assert cgroup_limit_bytes(root) == 1000
    assert used_bytes(root) == 760


def test_version_1_tells_the_same(tmp_path: Path) -> None:
    root = system(
        tmp_path,
        "9:name=systemd:/\n5:cpu,memory:/box\n0::/\n",
        {
            "sys/fs/cgroup/memory/box/memory.limit_in_bytes": "1000\n",
            "sys/fs/cgroup/memory/box/memory.usage_in_bytes": "960\n",
            "sys/fs/cgroup/memory/box/memory.stat": V1_STATISTICS,
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    assert cgroup_limit_bytes(root) == 1000
    assert used_bytes(root) == 930


@pytest.mark.parametrize(
    ("own", "around", "tightest"), [("max", "500", 500), ("400", "500", 400), ("600", "500", 500)]
)
def test_the_tightest_group_around_the_process_counts(
    tmp_path: Path, own: str, around: str, tightest: int
) -> None:
    root = system(
        tmp_path,
        "0::/slice/service\n",
        {
            "sys/fs/cgroup/slice/service/memory.max": own,
            "sys/fs/cgroup/slice/memory.max": around,
        },
    )
    assert cgroup_limit_bytes(root) == tightest
    group = Cgroup.find(root)
    assert group is not None
    place = "slice/service" if tightest == int(own.replace("max", "9999")) else "slice"
    assert group.usage_path == str(root / "sys/fs/cgroup" / place / "memory.current")


@pytest.mark.parametrize("path", ["/docker/0123", "/../../elsewhere"])
def test_a_group_that_the_container_cannot_see_is_looked_for_at_the_top(
    tmp_path: Path, path: str
) -> None:
    (tmp_path / "sys/fs/elsewhere").mkdir(parents=True)
    (tmp_path / "sys/fs/elsewhere/memory.limit_in_bytes").write_text("1")
    top = {"sys/fs/cgroup/memory/memory.limit_in_bytes": "800\n"}
    assert cgroup_limit_bytes(system(tmp_path, f"4:memory:{path}\n", top)) == 800


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        ("0::/\n", {}),
        ("0::/\n", {"sys/fs/cgroup/memory.max": "max\n"}),
        ("nonsense\n\n:::\n", {"sys/fs/cgroup/memory.max": "5\n"}),
        ("4:memory:/\n", {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"}),
    ],
)
def test_no_limit_is_none(tmp_path: Path, groups: str, files: dict[str, str]) -> None:
    root = system(tmp_path, groups, files)
    assert cgroup_limit_bytes(root) is None
    assert used_bytes(root) is None


def test_no_limit_is_none_where_there_are_no_groups(tmp_path: Path) -> None:
    assert Cgroup.find(tmp_path) is None


def test_a_group_that_has_gone_is_unavailable(tmp_path: Path) -> None:
    group = Cgroup.find(system(tmp_path, "0::/\n", {"sys/fs/cgroup/memory.max": "1000\n"}))
    assert group is not None
    with pytest.raises(UnavailableError, match="does not tell the memory of the container"):
        group.used_bytes()


@pytest.mark.parametrize(
    ("current", "statistics", "used"),
    [
        (960, "anon 700\n", 960),  # nothing said of the page cache
        (150, V2_STATISTICS, 0),  # the two files were not written at the same moment
    ],
)
def test_use_is_told_from_files_that_do_not_fit_together(
    tmp_path: Path, current: int, statistics: str, used: int
) -> None:
    files = {
        "sys/fs/cgroup/memory.max": "1000\n",
        "sys/fs/cgroup/memory.current": f"{current}\n",
        "sys/fs/cgroup/memory.stat": statistics,
    }
    assert used_bytes(system(tmp_path, "0::/\n", files)) == used
