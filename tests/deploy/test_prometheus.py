"""The rules: parsed, tried on made-up figures, explained in the runbook, and fired by a real Prometheus."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from daemon_process import running_daemon
from deadline import wait_until
from deploy.files import DEPLOY, RUNBOOK, free_port, run, section
from deploy.prometheus_server import PrometheusServer
from deploy.queries import unknown_metrics
from explorer import CONTAINER, Explorer
from faults.proxy import Command, Fate, Proxy

from pool_daemon.embedded import EmbeddedMongod

FOLDER = DEPLOY / "prometheus"
RULES = FOLDER / "rules.yaml"
CASES = Path(__file__).with_name("rules_test.yaml")
WANTED = {"Down", "NoLeader", "NoStandby", "Restarting", "TwoLeaders", "PassStale", "Late", "StreamBlind", "Holding"}
WANTED |= {"Quarantine", "AllQuarantined", "Unreadable", "ReloadRefused", "ClockDifference", "DatabaseErrors"}
RUNBOOK_LINK = "https://runbooks.example.org/pool-daemon/RUNBOOK.md"
"""Where the links lead until an operator sets them."""

UPDATE = "deploy/kubernetes/components/monitoring/update"
SCRAPED_SECONDS = 20
FIRING_SECONDS = 30

Rule = dict[str, Any]


def rules(kind: str) -> list[Rule]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def alert_names() -> list[str]:
    return [rule["alert"] for rule in rules("alert")]


def test_prometheus_takes_the_example_with_its_rules() -> None:
    run("promtool", "check", "config", FOLDER / "prometheus.yml")


def test_there_is_an_alert_for_each_thing_that_must_not_go_unnoticed() -> None:
    assert {f"PoolDaemon{name}" for name in WANTED} <= set(alert_names())


def test_the_rules_ask_for_nothing_that_the_daemon_does_not_tell() -> None:
    queries = [rule["expr"] for kind in ("alert", "record") for rule in rules(kind)]

    assert unknown_metrics(queries, recorded=[rule["record"] for rule in rules("record")]) == set()


def test_every_rule_does_what_its_cases_say() -> None:
    run("promtool", "test", "rules", CASES)


@pytest.mark.parametrize("name", alert_names())
def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(name: str) -> None:
    tests = yaml.safe_load(CASES.read_text(encoding="utf-8"))["tests"]
    outcomes = [
        bool(case["exp_alerts"]) for test in tests for case in test["alert_rule_test"] if case["alertname"] == name
    ]

    assert set(outcomes) == {True, False}


@pytest.mark.parametrize("rule", rules("alert"), ids=alert_names())
def test_every_alert_says_how_bad_it_is_and_where_its_remedy_stands(rule: Rule) -> None:
    document, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^### (\w+)$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)

    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]
    assert document == RUNBOOK_LINK
    assert (anchor, rule["alert"]) in [(heading.lower(), heading) for heading in headings]


def test_one_command_of_the_runbook_sets_where_every_link_leads(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    (command,) = (line for line in section("## Prometheus and Grafana", RUNBOOK).splitlines() if "/update http" in line)
    address = shlex.split(command)[1]

    run("bash", "-c", command, cwd=tmp_path)

    for name in ("prometheus/rules.yaml", "kubernetes/components/monitoring/prometheus-rule.yaml"):
        links = re.findall(r"runbook_url: ([^#]+)#", (tmp_path / "deploy" / name).read_text(encoding="utf-8"))
        assert len(links) == len(alert_names())
        assert set(links) == {address}


@pytest.mark.parametrize("address", ["", "wiki.example.org", "https://wiki.example.org/a|b", "https://wiki/#top"])
def test_what_is_no_address_is_refused_and_changes_nothing(address: str, tmp_path: Path) -> None:
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    before = RULES.read_text(encoding="utf-8")

    tried = subprocess.run([tmp_path / UPDATE, address], capture_output=True, text=True, check=False)

    assert tried.returncode == 2
    assert tried.stderr.startswith("update: ")
    assert (tmp_path / "deploy/prometheus/rules.yaml").read_text(encoding="utf-8") == before


def test_the_runbook_explains_no_alert_that_is_gone() -> None:
    headings = re.findall(r"^### (PoolDaemon\w+)$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)

    assert headings == alert_names()


def test_a_real_prometheus_fires_when_the_stream_is_cut_and_calms_down_when_it_is_back(
    mongod: EmbeddedMongod, explorer: Explorer, tmp_path: Path
) -> None:
    port = free_port()
    with (
        Proxy(uri=mongod.uri) as network,
        running_daemon(uri=network.uri, database_name=explorer.database.name, HTTP__PORT=str(port)) as daemon,
        PrometheusServer(config=_hasty_config(tmp_path, port), folder=tmp_path) as prometheus,
    ):
        daemon.wait_for_log(lambda record: record["event"] == "stream_opened", within_seconds=20, what="a stream")
        wait_until(lambda: prometheus.healths() == ["up"], within_seconds=SCRAPED_SECONDS, what="a scrape")
        alone = {"PoolDaemonNoStandby"}  # as it is here
        wait_until(lambda: set(prometheus.firing()) == alone, within_seconds=SCRAPED_SECONDS, what="nothing else fires")

        network.judge_commands(_cut_stream)
        network.cut()

        wait_until(
            lambda: "PoolDaemonStreamBlind" in prometheus.firing(), within_seconds=FIRING_SECONDS, what="the alert"
        )
        assert f"127.0.0.1:{port}" in prometheus.firing()["PoolDaemonStreamBlind"]
        network.heal()
        wait_until(
            lambda: "PoolDaemonStreamBlind" not in prometheus.firing(),
            within_seconds=FIRING_SECONDS,
            what="the end of the alert",
        )
        _expect_expiry(explorer)


def _cut_stream(command: Command) -> Fate:
    """Break every connection on which a change stream is read or opened; all else passes."""
    is_stream = command.body.get("collection") == "$cmd.aggregate" or command.body.get("aggregate") == 1
    return Fate.CUT_REQUEST if is_stream else Fate.PASS


def _expect_expiry(explorer: Explorer) -> None:
    pool = explorer.buy_expired(CONTAINER)
    explorer.wait_until_gone(pool.workload_ids, within_seconds=5)


def _hasty_config(folder: Path, port: int) -> Path:
    """Make the shipped example scrape the daemon of this test, look every second, and wait a second before it fires."""
    rules = re.sub(r"\bfor: \w+", "for: 1s", RULES.read_text(encoding="utf-8"))
    (folder / "rules.yaml").write_text(rules, encoding="utf-8")
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{port}"]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path
