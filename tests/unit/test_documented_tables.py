"""The tables of the documentation hold what the code has, and nothing else; a command writes what is measured."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from faults.figures import Figure, table_of, write_rows
from telemetry_scene import PATIENCE, new_observer
from virtual_clock import VirtualClock

from pool_daemon.bench.figures import Figure as Measured
from pool_daemon.bench.report import as_markdown as benchmark_table
from pool_daemon.bench.suite import Result, full
from pool_daemon.capacity import fields
from pool_daemon.capacity.pool import FIELDS
from pool_daemon.capacity.workload import FREE_TYPES, MACHINE_SIZES, NextAction, WorkloadType
from pool_daemon.commands import COMMANDS
from pool_daemon.errors import ConfigurationError, ExitCode
from pool_daemon.events import as_markdown as events_table
from pool_daemon.generated_table import read_table, write_table
from pool_daemon.store.policies import POLICIES
from pool_daemon.store.reservations import OPERATORS_COLLECTIONS
from pool_daemon.store.setup import GRACE_COLLECTIONS, NOTICE_COLLECTIONS, OWN_COLLECTIONS
from pool_daemon.telemetry.endpoint.pool_views import PATH
from pool_daemon.telemetry.endpoint.routes import Routes
from pool_daemon.telemetry.metric_table import as_markdown

PROJECT = Path(__file__).parents[2]
README = PROJECT / "README.md"
RUNBOOK = PROJECT / "deploy/RUNBOOK.md"
METRICS = PROJECT / "deploy/prometheus/README.md"
FAULTS = PROJECT / "tests/faults/README.md"
BENCHMARK = PROJECT / "pool_daemon/bench/README.md"
DATA = PROJECT / "pool_daemon/DATA.md"


def rows(document: Path, heading: str) -> list[list[str]]:
    """Read the cells of the table whose heading begins like that."""
    table = document.read_text(encoding="utf-8").partition(f"\n| {heading} |")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]


def test_every_command_is_in_the_table_of_commands() -> None:
    first_words = [word for row in rows(README, "command") for word in re.findall(r"`([a-z-]+)", row[0])]
    assert set(first_words) == set(COMMANDS)


def test_every_exit_code_is_in_the_table_of_exit_codes() -> None:
    assert [int(row[0]) for row in rows(README, "exit code")] == list(map(int, ExitCode))


def test_every_path_is_in_the_table_of_endpoints() -> None:
    routes = Routes(observer=new_observer(), staleness_limits=lambda: PATIENCE, clock=VirtualClock(0))
    named = {path for row in rows(RUNBOOK, "path") for path in re.findall("`([^`]+)`", row[0])}
    views = {path for path in named if PATH.fullmatch(path.replace("ID", "17"))}
    assert (views, named - views) == ({"/pools/ID", "/owners/ID"}, set(routes._answers))


def test_every_alert_is_in_the_table_of_alerts_with_its_severity() -> None:
    rules = yaml.safe_load((PROJECT / "deploy/prometheus/rules.yaml").read_text(encoding="utf-8"))
    alerts = [rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    assert [row[:2] for row in rows(RUNBOOK, "alert")] == [
        [f"[`{alert['alert']}`](#{alert['alert'].lower()})", alert["labels"]["severity"]] for alert in alerts
    ]


def test_the_fields_of_a_pool_stand_in_the_order_in_which_they_are_written() -> None:
    kinds: dict[Any, str] = {fields.number: "double", fields.rate: "double", fields.whole: "int64"}
    kinds |= {fields.texts: "array of strings, or null", fields.wholes: "array of int64, or null"}
    documented = [tuple(row[:2]) for row in rows(DATA, "field")]
    assert documented == [("`_id`", "int64"), *((f"`{name}`", kinds[read]) for name, read, _ in FIELDS)]


def test_the_actions_types_and_sizes_of_workloads_are_the_code_s() -> None:
    sentence = DATA.read_text(encoding="utf-8").partition("\n`next_action` is ")[2].partition(".")[0]
    assert re.findall(r"\d \w+", " ".join(sentence.split())) == [
        f"{action} {action.name.lower()}" for action in NextAction
    ]

    table = rows(DATA, "`workload_type`")
    types = {name.strip() for row in table for name in row[0].split(",")}
    assert types == {f"{kind} {kind.name.lower()}" for kind in WorkloadType}
    free = next(row[0] for row in table if row[1] == "nothing: free")
    assert {int(name.split()[0]) for name in free.split(",")} == FREE_TYPES

    sizes = [cells for row in rows(DATA, "size") for cells in zip(row[::2], row[1::2], strict=True)]
    assert {int(size): tuple(map(float, machine.split("/"))) for size, machine in sizes} == {
        size: (units.cru, units.mru, units.sru) for size, units in MACHINE_SIZES.items()
    }


def test_every_collection_of_the_daemon_s_own_is_described() -> None:
    chapters = DATA.read_text(encoding="utf-8").split("\n### `pool-daemon-")[1:]
    assert {f"pool-daemon-{chapter.partition('`')[0]}" for chapter in chapters} == {
        *OWN_COLLECTIONS,
        *OPERATORS_COLLECTIONS,
        *NOTICE_COLLECTIONS,
        *GRACE_COLLECTIONS,
        POLICIES,
    }


def test_the_table_of_metrics_is_the_code_s() -> None:
    assert read_table(METRICS) == as_markdown().strip(), f"run what {METRICS.name} says"


def test_the_runbook_s_table_of_events_is_the_code_s() -> None:
    assert read_table(RUNBOOK) == events_table().strip(), f"run what {RUNBOOK.name} says"


def test_the_benchmark_s_table_has_every_row_of_a_full_run_and_a_verdict_on_every_bound() -> None:
    measured = rows(BENCHMARK, "work")
    assert [row[0].rpartition("(`")[2].strip("`)") for row in measured if row[0]] == [row.name for row in full()]
    assert {bool(row[2]) == bool(row[4]) for row in measured} == {True}


def test_every_figure_of_the_readme_stands_in_the_benchmark_s_table() -> None:
    chapter = README.read_text(encoding="utf-8").partition("\n## How good it is\n")[2].partition("\n## ")[0]
    figures = re.findall(
        r"\d[\d,.]* (?:ms|MB|%|workloads/s|× (?:one by one|raw limit|without))", chapter.replace("\n ", "")
    )
    table = read_table(BENCHMARK)
    assert len(figures) > 10
    assert [figure for figure in figures if figure not in table] == []


def test_the_faults_table_counts_no_violation_that_the_readme_hides() -> None:
    table = rows(FAULTS, "#") or rows(FAULTS, " #")
    assert len(table) > 40
    assert sum(int(row[3]) for row in table) == 0, "the README says that there is none"


def test_faults_that_are_tested_and_not_in_the_table_are_said_to_be_missing() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in FAULTS.parent.glob("test_*.py"))
    tested = {int(number) for number in re.findall(r"figures\.record\(\s*(\d+),", sources)}
    measured = {int(row[0]) for row in rows(FAULTS, "#") or rows(FAULTS, " #")}
    said = "Faults 26 and up have tests and are not in it yet." in FAULTS.read_text(encoding="utf-8").replace("\n", " ")
    assert measured <= tested
    assert said == bool(tested - measured)
    assert not said or min(tested - measured) == 26


def test_a_benchmark_is_written_with_what_it_ran_on_and_what_it_did_not_reach() -> None:
    row, other = full()[:2]
    figures = [Measured("pace", 3.0, "/s", at_least=4), Measured("size", 2.0, "MB")]
    table = benchmark_table(
        [Result(row, figures, 60.0), Result(other, (), 60.0, "no room")],
        circumstances={"version": "1", "mongodb": "6.0.5", "cores": 2},
    )
    assert table.splitlines() == [
        "pool-daemon 1, MongoDB 6.0.5, 2 cores, 2 minutes.",
        "",
        "| work | figure | to reach | measured | |",
        "| -- | -- | --: | --: | -- |",
        f"| {row.work} (`{row.name}`) | pace | ≥ 4.00 /s | 3.00 /s | **not reached** |",
        "|  | size |  | 2.00 MB |  |",
        f"| {other.work} (`{other.name}`) | could not be measured: no room | | | **not reached** |",
    ]


def test_a_benchmark_of_some_rows_keeps_the_others_and_what_those_ran_on() -> None:
    first, second, third = full()[:3]
    results = [Result(row, [Measured("pace", 3.0, "/s"), Measured("size", 2.0, "MB")], 60.0) for row in (first, third)]
    before = benchmark_table(results, circumstances={"version": "1", "mongodb": "6.0.5", "cores": 2})
    again = [Result(row, [Measured("pace", 4.0, "/s")], 60.0) for row in (third, second)]
    table = benchmark_table(again, circumstances={"version": "2", "mongodb": "7", "cores": 1}, before=before)
    assert table.splitlines() == [
        *before.splitlines()[:6],
        f"| {second.work} (`{second.name}`) | pace |  | 4.00 /s |  |",
        f"| {third.work} (`{third.name}`) | pace |  | 4.00 /s |  |",
    ]


def test_a_generated_table_replaces_the_one_before_and_nothing_else(tmp_path: Path) -> None:
    document = tmp_path / "README.md"
    write_table(document, "| a |")
    document.write_text(f"# Above\n{document.read_text()}below\n")
    write_table(document, "| b |")
    assert read_table(document) == "| b |"
    assert document.read_text().startswith("# Above\n")
    assert document.read_text().endswith("below\n")


def test_a_document_without_marks_is_not_overwritten(tmp_path: Path) -> None:
    document = tmp_path / "notes.md"
    document.write_text("mine\n")
    with pytest.raises(ConfigurationError, match=r"notes\.md: has no lines"):
        write_table(document, "| a |")
    assert document.read_text() == "mine\n"


def test_a_run_of_some_faults_keeps_the_rows_of_the_others(tmp_path: Path) -> None:
    document = tmp_path / "README.md"
    first, second = (Figure(number, "cut off", 1000, 0, "late by 1 s") for number in (1, 2))
    write_rows(document, [second, first])
    again = second._replace(trials=2000)
    write_rows(document, [again])
    assert read_table(document) == table_of([first, again])
