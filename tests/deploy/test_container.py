"""The container file: judged by a linter, and followed step by step where no image can be built."""

import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from deadline import wait_until
from deploy.container_file import ContainerFile
from deploy.files import DEPLOY, PROJECT, RUNBOOK, commands, run
from deploy.machine import Machine
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PATH = DEPLOY / "container/Containerfile"
PINNED = DEPLOY / "container/requirements.txt"
FOLDER = "/opt/pool-daemon/bin"
START_SECONDS = 20

pytestmark = pytest.mark.timeout(300)  # an installation takes its time on a busy machine


@pytest.fixture(scope="module")
def machine(distribution: Path) -> Iterator[Machine]:
    """Boot a Debian as the place to build in; it calls Python as the image does."""
    with Machine(shown={distribution: "/context"}, alone=True) as machine:
        machine.run("ln", "--symbolic", "/usr/bin/python3", "/usr/local/bin/python")
        yield machine
        sys.stdout.write(machine.run("journalctl", "--unit=image"))  # shown where the test failed


@pytest.fixture
def container_file() -> ContainerFile:
    return ContainerFile(PATH)


def test_a_linter_finds_nothing_wrong_with_the_container_file() -> None:
    run("hadolint", PATH)


def test_everything_that_the_project_needs_is_pinned() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = _pinned()

    for wanted in map(Requirement, project["dependencies"]):
        assert pinned[canonicalize_name(wanted.name)] in wanted.specifier


def test_what_the_container_file_copies_is_sent_to_the_builder(container_file: ContainerFile) -> None:
    sent = PATH.with_name("Containerfile.dockerignore").read_text(encoding="utf-8").splitlines()

    for source in container_file.copied():
        assert f"!{source}" in sent


def test_the_bill_of_materials_names_what_is_pinned_with_its_hashes(tmp_path: Path) -> None:
    bill = tmp_path / "bill.json"
    command = next(line for line in commands("## Build the container image", RUNBOOK) if line.startswith("uvx "))

    run("uv", "tool", "run", *shlex.split(command.replace("sbom.cdx.json", str(bill)))[1:])

    components = json.loads(bill.read_text(encoding="utf-8"))["components"]
    assert {canonicalize_name(component["name"]): component["version"] for component in components} == _pinned()
    assert all(component["externalReferences"][0]["hashes"] for component in components)


def test_the_image_builds_and_its_daemon_passes_its_own_health_check(
    machine: Machine, container_file: ContainerFile
) -> None:
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/context/wheels"}
    container_file.build(machine, context="/context", settings=offline)
    user, _, group = container_file.says("USER").partition(":")
    program, *arguments = container_file.command()

    write, start = commands("### Run the image alone", RUNBOOK)
    machine.run("bash", "-c", write, given="mongodb://db/\n")
    seen = re.search(r"-v (\S+):(\S+):ro -e POOL_DAEMON_SECRETS_DIR=(\S+)", start)
    assert seen is not None
    assert seen[2] == seen[3]
    machine.run("ln", "--symbolic", seen[1], "/run/mounted")

    settings = (*container_file.environment(), "POOL_DAEMON_SECRETS_DIR=/run/mounted")
    health_check, *question = container_file.health_check()
    machine.run(
        *("systemd-run", "--unit=image", "--property=ProtectSystem=strict", *(f"--setenv={text}" for text in settings)),
        *("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs"),
        *(f"{FOLDER}/{program}", *arguments),
    )

    wait_until(
        lambda: machine.attempt(f"{FOLDER}/{health_check}", *question).returncode == 0,
        within_seconds=START_SECONDS,
        what="a daemon that calls itself healthy",
    )


def _pinned() -> dict[str, str]:
    """Return the version of every package in the image."""
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", PINNED.read_text(encoding="utf-8"), re.MULTILINE))
