"""What the tests of the shipped files share. They need tools (`.ci/tools`) and run with `pytest -m deploy`."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from arithmetic_model import Document
from browser import Browser, open_browser
from deploy.files import DEPLOY, PROJECT, run, tool
from explorer import Explorer
from pymongo import MongoClient

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this folder."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.deploy)


@pytest.fixture
def explorer(mongo: MongoClient[Document]) -> Iterator[Explorer]:
    """Write to a fresh database as the explorer does."""
    name = f"deploy-{uuid4().hex[:8]}"
    yield Explorer(database=mongo[name])
    mongo.drop_database(name)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Run a browser for a whole module."""
    tool("chromium")
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lay out the project as an installer finds it, with its wheel built and all that the wheel needs beside it.

    That is exactly what the container file pins, for Debian's Python; pip has compared every hash.
    """
    folder = tmp_path_factory.mktemp("distribution")
    for name in ("deploy", "pool_daemon"):
        shutil.copytree(PROJECT / name, folder / name)
    for name in ("LICENSE", "README.md", "config.example.toml", "pyproject.toml"):
        shutil.copy(PROJECT / name, folder)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder / "dist", PROJECT)
    for name in ("requirements.txt", "requirements-build.txt"):
        wanted = ("--require-hashes", "--requirement", DEPLOY / "container" / name)
        kind = ("--only-binary=:all:", "--python-version=3.11")
        run(sys.executable, "-m", "pip", "download", "--quiet", *kind, *wanted, "--dest", folder / "wheels")
    return folder
