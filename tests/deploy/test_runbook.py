"""The runbook: what it points to is there, and what it names exists."""

import re
from pathlib import Path

import pytest
import yaml
from deploy.files import DEPLOY, PROJECT, README, RUNBOOK, section
from deploy.queries import served_metrics

from pool_daemon.settings.sections import SECTIONS

DOCUMENTS = [README, RUNBOOK]
FAILURES = "### When something is wrong"

MENDED_BY_ITSELF = {
    "alarm_overslept",
    "clock_not_compared",
    "lease_not_released",
    "lease_sessions_not_ended",
    "lease_unavailable",
    "quarantine_unwritten",
    "reconciliation_failed",
    "repair_failed",
    "setup_failed",
}
"""What is tried again, or made up for, without anybody's help, and leads to nothing that the README does not name."""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", _text(document))

    assert links
    for link in links:
        file, _, anchor = link.partition("#")
        target = document.parent / file if file else document
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_setting_named_is_one(document: Path) -> None:
    named = re.findall(rf"`({'|'.join(SECTIONS)})\.(\w+)", _text(document))

    assert named
    assert [f"{section}.{field}" for section, field in named if field not in SECTIONS[section]] == []


@pytest.mark.parametrize("text", [RUNBOOK.read_text("utf-8"), section(FAILURES, README)], ids=["runbook", "readme"])
def test_every_event_named_is_one_that_the_daemon_logs(text: str) -> None:
    source = "\n".join(_text(path) for path in (PROJECT / "pool_daemon").rglob("*.py"))
    words = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", text)) - served_metrics()

    assert words
    assert [word for word in words if f'"{word}"' not in source] == []


def test_the_readme_explains_every_warning_and_error_that_asks_for_somebody() -> None:
    loggers = (PROJECT / "pool_daemon").rglob("*.py")
    told = {name for path in loggers for name in re.findall(r'log\.(?:warning|error)\(\s*"(\w+)"', _text(path))}

    assert sorted(told - MENDED_BY_ITSELF - set(re.findall(r"`(\w+)`", section(FAILURES, README)))) == []
    assert told >= MENDED_BY_ITSELF


def test_the_readme_lists_every_alert_with_its_severity() -> None:
    groups = yaml.safe_load(_text(DEPLOY / "prometheus/rules.yaml"))["groups"]
    alerts = [
        (rule["alert"], rule["labels"]["severity"]) for group in groups for rule in group["rules"] if "alert" in rule
    ]

    rows = re.findall(r"^\| \[`(\w+)`\]\(deploy/RUNBOOK\.md#(\w+)\) \| (\w+) \|", _text(README), re.MULTILINE)
    assert [(name, severity) for name, _, severity in rows] == alerts
    assert [anchor for _, anchor, _ in rows] == [name.lower() for name, _ in alerts]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_command_asks_kubernetes_in_the_wrong_namespace(document: Path) -> None:
    wanting = re.compile(r"kubectl (?!apply|create namespace)[^`|]*?(?=`|\n\n|\n```|\nkubectl|\||  #|$)", re.MULTILINE)
    commands = [match[0] for match in re.finditer(wanting, _text(document))]

    assert commands
    assert [command for command in commands if "--namespace" not in command] == []


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _text(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
