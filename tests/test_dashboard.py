"""The board for Grafana and the page on metrics show what is exported, and nothing else."""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mailrace.pool import Pool
from mailrace.pool.exporters import PrometheusCollector
from mailrace.pool.exporters.metrics import METRICS as POOL_METRICS
from mailrace.queue.exporting import PREFIX, QueueCollector
from mailrace.queue.metrics import METRICS
from mailrace.queue.stores.sqlite import SqliteStore
from tests.support.clock import VirtualClock
from tests.support.command import environment

ROOT = Path(__file__).parent.parent
BOARD = (ROOT / "dashboards" / "grafana" / "mailrace.json").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
ROWS = [
    "At a glance",
    "Throughput",
    "Backlog and waiting",
    "Workers and heartbeats",
    "Failures and dead letters",
    "Limits",
    "Alerts and this exporter",
    "Pools of programs",
]


def labels_of() -> dict[str, tuple[str, ...]]:
    """The labels of every metric of stores and pools, by the name it is scraped under."""
    queue = {
        PREFIX + metric.name + ("_total" if metric.type == "counter" else ""): metric.labels
        for metric in METRICS
    }
    pool = {
        f"mailrace_pool_{metric.name}" + ("_total" if metric.type == "counter" else ""): (
            "pool", *filter(None, [metric.label]),
        )
        for metric in POOL_METRICS
    }  # fmt: skip
    others: dict[str, tuple[str, ...]] = {"mailrace_pool_up": ("pool",)}
    for name in ("mailrace_pool_wait_seconds", "mailrace_pool_run_seconds"):
        others |= {name: ("pool", "quantile")}
    for name in ("mailrace_store_up", "mailrace_store_snapshot_age_seconds"):
        others |= {name: ()}
    return queue | pool | others


LABELS = labels_of()


async def test_the_names_are_those_that_the_collectors_give(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path / "jobs.db", VirtualClock())
    families = [
        *QueueCollector(store, old_after_s=1, clock=VirtualClock()).describe(),
        *PrometheusCollector(Pool(name="mails")).describe(),
    ]
    await store.close()
    names = {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in families
    }
    assert set(names) == set(LABELS)
    assert {name: kind for name, kind, *_ in documented()} == names


# The board


@pytest.fixture(scope="module")
def board() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(BOARD)
    return found


def panels_of(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", [])


def expressions(board: dict[str, Any]) -> list[str]:
    targets = [target["expr"] for panel in panels_of(board) for target in panel.get("targets", [])]
    return [*targets, *(str(item.get("definition", "")) for item in board["templating"]["list"])]


def unknown_in(expression: str) -> set[str]:
    """Metrics and labels that an expression names and that are not exported."""
    metrics = set(re.findall(r"mailrace_\w+", expression))
    wrong = metrics - set(LABELS)
    for name, selector in re.findall(r"(mailrace_\w+)\{([^}]*)\}", expression):
        wrong |= set(re.findall(r"(\w+)\s*[=!]", selector)).difference(LABELS.get(name, ()))
    asked = re.findall(r"by \(([^)]*)\)", expression)
    grouped = {label.strip() for labels in asked for label in labels.split(",")}
    there = {label for name in metrics for label in LABELS.get(name, ())}
    return wrong | (grouped - there)


def test_everything_that_the_board_asks_for_is_exported(board: dict[str, Any]) -> None:
    found = expressions(board)
    assert len(found) > 40
    assert {text: wrong for text in found if (wrong := unknown_in(text))} == {}


@pytest.mark.parametrize(
    "wrong",
    [
        "mailrace_queue_jobs_total",
        'mailrace_queue_jobs{host="a"}',
        "sum by (tenant) (mailrace_queue_jobs)",
        "rate(mailrace_queue_retries[5m])",
    ],
)
def test_a_board_that_asks_for_something_else_would_be_found(wrong: str) -> None:
    assert unknown_in(wrong)


def test_the_board_shows_every_metric_of_a_store(board: dict[str, Any]) -> None:
    shown = set(re.findall(r"mailrace_\w+", "\n".join(expressions(board))))
    assert {name for name in LABELS if "_pool_" not in name} <= shown


def test_a_legend_names_labels_that_its_expression_has(board: dict[str, Any]) -> None:
    for panel in panels_of(board):
        for target in panel.get("targets", []):
            groups = re.findall(r"by \(([^)]*)\)", target["expr"])
            labels = {label.strip() for labels in groups[:1] for label in labels.split(",")}
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels, target


def test_panels_are_told_apart_and_lie_beside_each_other(board: dict[str, Any]) -> None:
    panels = list(panels_of(board))
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    assert [panel["title"] for panel in panels if panel["type"] == "row"] == ROWS


def test_the_data_source_is_asked_for(board: dict[str, Any]) -> None:
    (asked,) = board["__inputs"]
    assert (asked["name"], asked["pluginId"]) == ("DS_PROMETHEUS", "prometheus")
    (variable,) = [item for item in board["templating"]["list"] if item["type"] == "datasource"]
    assert variable["current"]["value"] == "${DS_PROMETHEUS}"
    used = {
        part["datasource"]["uid"]
        for panel in panels_of(board)
        for part in (panel, *panel.get("targets", []))
        if panel["type"] != "row"
    }
    assert used == {"${datasource}"}


def test_the_board_names_no_machine() -> None:
    for pattern in (r"\d+\.\d+\.\d+\.\d+", r"\w+://", r"localhost", r"@", r"\.(com|net|org|io)\b"):
        assert re.findall(pattern, BOARD) == []


# The page


def documented() -> list[tuple[str, str, tuple[str, ...], str, str]]:
    """Name, type, labels, unit and meaning, from the tables."""
    rows = re.findall(
        r"^\| `(mailrace_\w+)` \| (\w+) \| (.*?) ?\| (.+?) \| (.+) \|$", PAGE, re.MULTILINE
    )
    return [
        (name, kind, tuple(re.findall(r"`(\w+)`", labels)), unit, meaning)
        for name, kind, labels, unit, meaning in rows
    ]


def test_the_page_has_every_metric_once_with_its_labels() -> None:
    rows = documented()
    assert len({name for name, *_ in rows}) == len(rows)
    assert {name: labels for name, _, labels, *_ in rows} == LABELS


def test_the_page_says_what_the_metrics_say_of_themselves() -> None:
    said = {name: meaning for name, *_, meaning in documented()}
    for metric in METRICS:
        name = PREFIX + metric.name + ("_total" if metric.type == "counter" else "")
        assert said[name] == metric.meaning


def test_units_are_those_of_the_names() -> None:
    endings = {"_bytes": "bytes", "_ratio": "share, 0 to 1", "_timestamp_seconds": "Unix seconds"}
    for name, _, _, unit, _ in documented():
        for ending, expected in endings.items():
            assert name.endswith(ending) == (unit == expected), name
        assert (unit == "seconds") == name.endswith("_seconds") or unit == "Unix seconds", name


def named_in(text: str) -> Iterable[str]:
    return (
        name.removesuffix("_") for name in re.findall(r"mailrace_(?:queue|store|pool)_\w+", text)
    )


def test_every_metric_that_the_page_names_is_there() -> None:
    assert set(named_in(PAGE)) == set(LABELS)
    alerts = re.findall(r"^ +expr: (.+)$", PAGE, re.MULTILINE)
    assert len(alerts) == 3
    assert [text for text in alerts if unknown_in(text)] == []


def test_the_pages_program(tmp_path: Path) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (output,) = re.findall(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == output
