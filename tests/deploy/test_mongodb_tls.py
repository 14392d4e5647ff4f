"""MongoDB over TLS, with an authority of one's own: what the runbook says about it, tried."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
from arithmetic_model import Document
from daemon_process import DaemonProcess, running_daemon
from deploy.files import run
from explorer import CONTAINER, Explorer
from pymongo import MongoClient
from pymongo.errors import AutoReconnect

from pool_daemon.embedded import EmbeddedMongod

QUICK = {"DATABASE__SERVER_SELECTION_SECONDS": "1", "HTTP__PORT": "0"}
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "1")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an authority, a certificate that it gives to the server, and another authority that gives none."""
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("ca", "other-ca"):
        run(
            "openssl",
            "req",
            "-x509",
            *KEY,
            "-subj",
            f"/CN={name}",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.pem",
            cwd=folder,
        )
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1")
    run("openssl", "req", "-x509", *KEY, *signed, "-subj", "/CN=db", "-keyout", "db.key", "-out", "db.crt", cwd=folder)
    (folder / "db.pem").write_bytes((folder / "db.key").read_bytes() + (folder / "db.crt").read_bytes())
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def uri(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Run a mongod that, once it is up, takes TLS and nothing else."""
    options = [
        "--tlsMode=preferTLS",
        f"--tlsCertificateKeyFile={certificates / 'db.pem'}",
        f"--tlsCAFile={certificates / 'ca.pem'}",
        "--tlsAllowConnectionsWithoutCertificates",
    ]
    async with EmbeddedMongod(folder=tmp_path_factory.mktemp("tls"), options=options) as server:
        with MongoClient[Document](server.uri) as plain:
            plain.admin.command("setParameter", 1, tlsMode="requireTLS")
        yield server.uri


@pytest.fixture
def explorer(uri: str, certificates: Path) -> Iterator[Explorer]:
    """Write to a fresh database as the explorer does, over TLS."""
    with MongoClient[Document](uri, tls=True, tlsCAFile=str(certificates / "ca.pem")) as client:
        yield Explorer(database=client[f"tls-{uuid4().hex[:8]}"])


def test_the_server_takes_nothing_but_tls(uri: str) -> None:
    with MongoClient[Document](uri, serverSelectionTimeoutMS=500) as plain, pytest.raises(AutoReconnect):
        plain.admin.command("ping")


def test_a_daemon_that_knows_the_authority_works(uri: str, certificates: Path, explorer: Explorer) -> None:
    pool = explorer.buy_expired(CONTAINER)
    with running_daemon(
        uri=f"{uri}&tls=true&tlsCAFile={certificates / 'ca.pem'}", database_name=explorer.database.name, **QUICK
    ) as daemon:
        explorer.wait_until_gone(pool.workload_ids, within_seconds=15)

    assert daemon.complaints() == []


def test_a_daemon_that_knows_another_authority_stays_away_and_says_why(
    uri: str, certificates: Path, explorer: Explorer
) -> None:
    pool = explorer.buy_expired(CONTAINER)
    wrong = f"{uri}&tls=true&tlsCAFile={certificates / 'other-ca.pem'}"
    with DaemonProcess(uri=wrong, database_name=explorer.database.name, **QUICK) as daemon:
        daemon.wait_for_log(
            lambda record: (
                record["event"] == "database_unavailable" and "certificate verify failed" in record["reason"]
            ),
            within_seconds=15,
            what="why the database is away",
        )
        daemon.stop()

    assert explorer.next_actions(pool.workload_ids) == [3]
