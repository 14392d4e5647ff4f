"""The dashboard: Prometheus understands what it asks, the daemon can answer, and nothing that it tells is left out."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from deploy.files import DEPLOY, run
from deploy.queries import served_metrics, unknown_metrics

DASHBOARD = DEPLOY / "grafana/pool-daemon.json"
VARIABLES = {"$__rate_interval": "5m", "$namespace": ".*", "$instance": ".*"}
COLUMNS = 24

Panel = dict[str, Any]


def dashboard() -> Panel:
    found: Panel = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return found


def panels() -> list[Panel]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> Iterator[str]:
    for panel in panels():
        for target in panel["targets"]:
            yield _filled_in(target["expr"])


def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    records = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries())]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": records}]}), encoding="utf-8")

    run("promtool", "check", "rules", path)


def test_every_metric_asked_for_is_one_that_the_daemon_has() -> None:
    assert unknown_metrics(queries()) == set()


def test_every_metric_of_the_daemons_own_is_shown() -> None:
    shown = " ".join(queries())
    families = {name.removesuffix("_bucket") for name in served_metrics() if not name.endswith(("_count", "_sum"))}

    assert [name for name in families if name.startswith("pool_daemon_") and name not in shown] == []


def test_two_databases_with_a_leader_each_are_green_and_one_without_is_red(tmp_path: Path) -> None:
    (leaders,) = (panel for panel in panels() if panel["title"] == "Leaders")
    expected = {"a": 1.0, "b": 1.0, "c": 0.0}
    series = [
        {
            "series": f'pool_daemon_leader{{job="pool-daemon", namespace="{name}", instance="{name}{number}"}}',
            "values": v,
        }
        for name, value in expected.items()
        for number, v in enumerate((str(int(value)), "0"))
    ]
    samples = [{"labels": f'{{namespace="{name}"}}', "value": value} for name, value in expected.items()]
    asked = {"expr": _filled_in(leaders["targets"][0]["expr"]), "eval_time": "0s", "exp_samples": samples}
    path = tmp_path / "test.yaml"
    path.write_text(
        yaml.safe_dump({"tests": [{"input_series": series, "promql_expr_test": [asked]}]}), encoding="utf-8"
    )

    run("promtool", "test", "rules", path)

    assert [_color(leaders, value) for value in (*expected.values(), 2)] == ["green", "green", "red", "red"]


def test_what_is_rare_is_counted_and_not_told_by_the_second() -> None:
    by_the_second = [panel["title"] for panel in panels() if panel["fieldConfig"]["defaults"].get("unit") == "ops"]

    assert by_the_second == ["Commands"]


def test_no_variable_is_used_that_is_not_declared() -> None:
    declared = {variable["name"] for variable in dashboard()["templating"]["list"]}

    assert declared == {"datasource", "namespace", "instance"}
    assert not any("$" in query for query in queries())


def test_every_panel_has_a_title_a_unit_and_the_chosen_data_source() -> None:
    for panel in panels():
        defaults = panel["fieldConfig"]["defaults"]
        assert panel["title"]
        assert defaults.get("unit") or panel["options"]["yAxis"]["unit"]
        assert {source["uid"] for source in (panel["datasource"], *_sources(panel))} == {"${datasource}"}


def test_no_two_panels_share_a_place_or_a_number() -> None:
    every = dashboard()["panels"]
    places = [place for panel in every for place in _places(panel["gridPos"])]

    assert len(places) == len(set(places))
    assert len({panel["id"] for panel in every}) == len(every)
    assert max(column for column, _ in places) < COLUMNS


def _color(panel: Panel, value: float) -> str:
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    colors: list[str] = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return colors[-1]


def _filled_in(query: str) -> str:
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    return query


def _sources(panel: Panel) -> list[Panel]:
    return [target["datasource"] for target in panel["targets"]]


def _places(position: dict[str, int]) -> Iterator[tuple[int, int]]:
    for column in range(position["x"], position["x"] + position["w"]):
        for line in range(position["y"], position["y"] + position["h"]):
            yield column, line
