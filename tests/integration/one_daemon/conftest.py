"""What these tests share: one daemon for a whole module, with an outside writer and a ledger of its database."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from arithmetic_model import Document
from daemon_process import DaemonProcess, running_daemon
from explorer import Explorer
from ledger import Ledger
from pymongo import MongoClient


@pytest.fixture(scope="module")
def explorer(mongo: MongoClient[Document]) -> Iterator[Explorer]:
    """Write to a fresh database as the explorer does."""
    name = f"black-box-{uuid4().hex[:8]}"
    yield Explorer(database=mongo[name])
    mongo.drop_database(name)


@pytest.fixture(scope="module")
def ledger(mongo: MongoClient[Document], explorer: Explorer) -> Ledger:
    """Judge what is committed to the explorer's database from now on."""
    return Ledger(client=mongo, explorer=explorer)


@pytest.fixture(scope="module")
def daemon_settings() -> dict[str, str]:
    """Set nothing; a module that means the daemon to run otherwise has a fixture of its own."""
    return {}


@pytest.fixture(scope="module")
def daemon(
    mongo_uri: str, explorer: Explorer, ledger: Ledger, daemon_settings: dict[str, str]
) -> Iterator[DaemonProcess]:
    """Run one daemon for the whole module; at its end no workload may be lost or gone too early."""
    with running_daemon(uri=mongo_uri, database_name=explorer.database.name, **daemon_settings) as daemon:
        ledger.settle()
        yield daemon
    assert ledger.violations_of_i1() == []
    assert ledger.violations_of_i2() == []
