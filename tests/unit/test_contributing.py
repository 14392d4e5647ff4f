"""What a contributor relies on: the edit is what is tested, the hooks are the check, the pins are one set."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy.files import PROJECT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import pool_daemon

CONTRIBUTING = PROJECT / ".github/CONTRIBUTING.md"
PINNED = PROJECT / ".ci/requirements.txt"
DEPLOYED = (PROJECT / "deploy/container/requirements.txt", PROJECT / "deploy/container/requirements-build.txt")
OWN_NAME = "pool-daemon"


def test_what_is_tested_is_this_folder_in_the_processes_that_tests_start_too(tmp_path: Path) -> None:
    script = "import pool_daemon; print(pool_daemon.__file__)"
    seen = subprocess.check_output([sys.executable, "-c", script], cwd=tmp_path, text=True).strip()

    assert Path(seen) == Path(pool_daemon.__file__) == PROJECT / "pool_daemon/__init__.py"


def test_the_hooks_are_the_steps_of_the_check() -> None:
    check = (PROJECT / ".ci/check").read_text(encoding="utf-8")
    config = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    every = re.search(r"set -- (.*)", check)

    assert every is not None
    assert [hook["entry"] for hook in hooks] == [f".ci/check {step}" for step in every[1].split()]
    assert {repo["repo"] for repo in config["repos"]} == {"local"}


def test_every_program_that_contributors_are_told_to_run_is_there() -> None:
    programs = set(re.findall(r"(?<![\w/])\.ci/[a-z]+\b(?!\.)", CONTRIBUTING.read_text(encoding="utf-8")))

    assert programs >= {".ci/setup", ".ci/check", ".ci/run"}
    assert [name for name in programs if not os.access(PROJECT / name, os.X_OK)] == []


def test_whatever_the_project_names_has_an_upper_bound_and_is_pinned_within_its_bounds() -> None:
    pinned = pins(PINNED)

    for wanted in requirements():
        assert any(bound.operator in {"<", "==", "~="} for bound in wanted.specifier), wanted
        assert pinned[canonicalize_name(wanted.name)] in wanted.specifier, wanted


def test_ci_holds_the_branch_coverage_to_its_floor() -> None:
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["coverage"]
    ci = (PROJECT / ".ci/run").read_text(encoding="utf-8")

    assert settings["run"]["branch"]
    assert 0 < settings["report"]["fail_under"] < 100
    assert re.search(r'^PYTEST_ADDOPTS="--cov .*bash -c "\$command"$', ci, re.MULTILINE)


@pytest.mark.parametrize("deployed", DEPLOYED, ids=lambda path: path.name)
def test_what_is_deployed_is_what_is_tested(deployed: Path) -> None:
    assert pins(deployed).items() <= pins(PINNED).items()


@pytest.mark.parametrize("path", [PINNED, *DEPLOYED], ids=lambda path: path.name)
def test_pins_have_hashes_and_name_no_place_to_fetch_them_from(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert re.findall(r"^[a-z0-9-]+==[^\n]*[^\\\n]$", text, re.MULTILINE) == []
    assert "://" not in text


def requirements() -> Iterator[Requirement]:
    project: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    every = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for extra in project["project"]["optional-dependencies"].values():
        every += extra
    return (wanted for wanted in map(Requirement, every) if wanted.name != OWN_NAME)


def pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", path.read_text(encoding="utf-8"), re.MULTILINE))
