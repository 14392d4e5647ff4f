"""The runbook: what it points to is there, and what it names exists."""

import re
from pathlib import Path

import pytest
from deploy.files import PROJECT, README, RUNBOOK
from deploy.queries import served_metrics

from pool_daemon.settings.sections import SECTIONS

DOCUMENTS = [README, RUNBOOK]


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


def test_every_event_named_is_one_that_the_daemon_logs() -> None:
    source = "\n".join(_text(path) for path in (PROJECT / "pool_daemon").rglob("*.py"))
    words = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", _text(RUNBOOK))) - served_metrics()

    assert words
    assert [word for word in words if f'"{word}"' not in source] == []


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _text(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
