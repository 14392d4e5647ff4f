"""The documentation: what it points to is there, and what it names exists."""

import argparse
import json
import re
import shutil
import subprocess
from itertools import chain
from pathlib import Path

import pytest
from deploy.files import DEPLOY, PROJECT, README, RUNBOOK, section
from deploy.queries import served_metrics

from pool_daemon import events
from pool_daemon.commands import COMMANDS, build_parser
from pool_daemon.settings.settings import SECTIONS

FOLDERS = (".", ".github", "deploy", "deploy/*", "pool_daemon", "pool_daemon/*", "tests", "tests/*")
DOCUMENTS = sorted(path for folder in FOLDERS for path in PROJECT.glob(f"{folder}/*.md"))
PRESENT = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]
"""The documents that speak of what is so now; a changelog names what was."""

BUILT = "dist/"
"""A folder that comes into being."""

TOP_LEVEL = {"LICENSE", "README.md", "config.example.toml", "deploy", "pool_daemon", "pyproject.toml", "tests"}

FAILURES = "## When something is wrong"


def named(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def test_every_document_is_looked_at() -> None:
    assert {README, RUNBOOK, DEPLOY / "prometheus/README.md"} <= set(DOCUMENTS)
    assert {named(path.parent) for path in DOCUMENTS} >= {"tests/faults", "pool_daemon/bench"}


def test_the_top_level_holds_what_was_agreed_and_nothing_that_a_command_left() -> None:
    git = shutil.which("git") or "git"
    listed = subprocess.run([git, "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True)
    top = {name.split("/")[0] for name in listed.stdout.split("\0") if name}
    assert {name for name in top if not name.startswith(".")} == TOP_LEVEL


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_link_and_picture_leads_somewhere(document: Path) -> None:
    text = _text(document)
    links = [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r'(?:src|srcset)="([^"]+)"', text)]

    for link in links:
        file, _, anchor = link.partition("#")
        target = document.parent / file if file else document
        assert link.startswith("https://") or target.exists(), link
        assert not anchor or target.suffix != ".md" or anchor in _anchors(target), link


@pytest.mark.parametrize("document", PRESENT, ids=named)
def test_every_file_and_folder_of_the_project_that_is_named_exists(document: Path) -> None:
    names = re.findall(r"`((?:\.\w+/|\w)[\w./-]*(?:\.py|/))`", _text(document))
    roots = (document.parent, PROJECT, PROJECT / "pool_daemon")

    assert [name for name in names if name != BUILT and not any((root / name).exists() for root in roots)] == []


def test_every_module_and_folder_is_on_the_map() -> None:
    package = PROJECT / "pool_daemon"
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    modules = {path.name for path in package.glob("*.py") if not path.name.startswith("_")}
    table = section("## The layers", package / "README.md")

    assert folders | modules == set(re.findall(r"`(\w+(?:/|\.py))`", table))


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_no_line_of_a_drawing_has_a_semicolon_which_would_end_its_statement(document: Path) -> None:
    drawings = re.findall(r"^```mermaid\n(.*?)^```", _text(document), re.DOTALL | re.MULTILINE)

    assert [line for drawing in drawings for line in drawing.splitlines() if ";" in line] == []


@pytest.mark.parametrize("document", PRESENT, ids=named)
def test_every_setting_named_is_one(document: Path) -> None:
    settings = re.findall(rf"`({'|'.join(SECTIONS)})\.(?!py`)(\w+)", _text(document))

    assert [f"{section}.{field}" for section, field in settings if field not in SECTIONS[section]] == []


@pytest.mark.parametrize("document", PRESENT, ids=named)
def test_every_command_named_is_one_and_takes_the_options_that_it_is_given(document: Path) -> None:
    spans = re.findall(
        r"(?<!namespace )(?<![\w/-])pool-daemon ([a-z][\w-]*)((?: [\w.…-]+)*)", "\n".join(_code(_text(document)))
    )
    unknown = []
    for command, rest in spans:
        options = re.findall(r"--[\w-]+", rest)
        if command not in COMMANDS or not set(options) <= _options(command):
            unknown.append(f"{command}{rest}")

    assert unknown == []


@pytest.mark.parametrize("document", PRESENT, ids=named)
def test_no_command_asks_kubernetes_in_the_wrong_namespace(document: Path) -> None:
    wanting = re.compile(r"kubectl (?!apply|create namespace)[^`|]*?(?=`|\n\n|\n```|\nkubectl|\||  #|$)", re.MULTILINE)
    commands = [match[0] for match in re.finditer(wanting, _text(document))]

    assert [command for command in commands if "--namespace" not in command] == []


def test_the_readme_is_short_and_shows_both_setup_commands_before_the_first_detail() -> None:
    text = _text(README)

    assert len(text.encode()) <= 12 * 1024
    assert "pip install '.[embedded]' && .venv/bin/pool-daemon demo\n" in text.partition("## Install")[0]
    assert "pip install '.[test]' && .venv/bin/pytest\n" in text.partition("## Install")[0]


def test_the_pictures_of_the_readme_are_small() -> None:
    sizes = [path.stat().st_size for path in (PROJECT / ".github").glob("page-*.png")]

    assert len(sizes) == 2
    assert max(sizes) < 150_000


def test_every_event_named_in_the_runbook_is_one_that_the_daemon_logs() -> None:
    source = "\n".join(_text(path) for path in (PROJECT / "pool_daemon").rglob("*.py"))
    words = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", _text(RUNBOOK))) - served_metrics()

    assert words
    assert [word for word in words if f'"{word}"' not in source and f"{word}=" not in source] == []


def test_the_runbook_says_from_which_collections_a_thief_of_the_password_can_remove() -> None:
    role = json.loads((DEPLOY / "mongodb/role.json").read_text(encoding="utf-8"))
    removed = {each["resource"]["collection"] for each in role["privileges"] if "remove" in each["actions"]}
    said = (
        RUNBOOK.read_text(encoding="utf-8")
        .partition("What a thief of the password can do:")[2]
        .partition("No document of the explorer")[0]
    )
    assert set(re.findall(r"`(pool-daemon-\w+)`", said)) == removed


def test_every_event_of_the_table_is_told_by_some_part() -> None:
    sources = [_text(path) for path in (PROJECT / "pool_daemon").rglob("*.py") if path != Path(events.__file__)]
    imported = re.findall(r"^from pool_daemon\.events import (\([^)]*\)|.*)$", "\n".join(sources), re.MULTILINE)
    told = {*re.findall(r"\bevents\.([A-Z_]+)\b", "\n".join(sources)), *re.findall(r"\w+", " ".join(imported))}
    rows = {name for name, row in vars(events).items() if isinstance(row, events.Event)}

    assert sorted(rows - told) == []


def test_every_event_has_a_meaning_and_one_that_warns_a_remedy_and_a_place_in_the_runbook() -> None:
    quiet = {events.Level.DEBUG, events.Level.INFO}

    assert [row.name for row in events.TABLE if not row.meaning] == []
    assert [row.name for row in events.TABLE if not row.remedy and row.level not in quiet] == []
    assert {row.name for row in events.TABLE if row.level not in quiet} <= set(
        re.findall(r"^\| `(\w+)` \|", section(FAILURES, RUNBOOK), re.MULTILINE)
    )


def test_events_of_one_name_are_told_by_one_part() -> None:
    parts: dict[str, set[str]] = {}
    for row in events.TABLE:
        parts.setdefault(row.name, set()).add(row.logger)

    assert [name for name, loggers in parts.items() if len(loggers) > 1] == []


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _code(text: str) -> list[str]:
    return [*re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE), *re.findall(r"`([^`\n]+)`", text)]


def _anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _text(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _options(command: str) -> set[str]:
    """Return the options of a command and of its actions."""
    (commands,) = _choices(build_parser(loaded={command}))
    parsers = [commands[command], *chain.from_iterable(each.values() for each in _choices(commands[command]))]
    return {option for parser in parsers for option in parser._option_string_actions}


def _choices(parser: argparse.ArgumentParser) -> list[dict[str, argparse.ArgumentParser]]:
    return [dict(action.choices) for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
