"""A replica set comes back with another history at the same address, under a daemon that goes on running."""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from addresses import through
from arithmetic_model import Document, Rates
from daemon_process import running_daemon
from explorer import CONTAINER, YEAR_SECONDS, Explorer
from faults.daemons import STORM
from faults.figures import Figures
from faults.pools import falling_due, ids_of, overdue
from faults.streams import DEAF, wait_for_stream
from ledger import Ledger
from pymongo import MongoClient

from pool_daemon.embedded import EmbeddedMongod
from pool_daemon.embedded.folder import KEY_FILE, PASSWORD_FILE

RETURN_SECONDS = 60
QUICK = STORM | DEAF | {"LEASE__SECONDS": "3", "DATABASE__SERVER_SELECTION_SECONDS": "2"}
DATABASE = "explorer"
OVERDUE_SECONDS = 60
SET, OTHER_SET = "first", "second"
EVERYTHING = {"resource": {"anyResource": True}, "actions": ["anyAction"]}
ELECTIONS = 2
"""As many as the old history has had more than the new one: the driver takes what has had fewer for outdated."""


class Place:
    """One port with a replica set of one behind it, which is taken away and replaced."""

    def __init__(self, folder: Path) -> None:
        self._runner = asyncio.Runner()
        self._folders = [folder / "0"]
        self._server = EmbeddedMongod(folder=self._folders[0], replica_set=SET)

    @property
    def uri(self) -> str:
        """The address, which names no set."""
        return through(self._server.uri, self._server.port)

    def start(self) -> None:
        """Serve what is in the folder; each time is another election."""
        self._runner.run(self._server.start())

    def stop(self) -> None:
        """End the server; its loop is of no more use at the very end."""
        self._runner.run(self._server.stop())

    def close(self) -> None:
        """Stop for good."""
        self.stop()
        self._runner.close()

    def replace(self, *, name: str) -> None:
        """Put an empty set of that name in the place, with the same user."""
        self.stop()
        old, new = self._folders[-1], self._folders[0].with_name(str(len(self._folders)))
        new.mkdir(mode=0o700)
        for secret in (KEY_FILE, PASSWORD_FILE):
            shutil.copy(old / secret, new)
        self._folders.append(new)
        self._serve(name)

    def forget(self) -> None:
        """Take the history away and leave the data, as it is documented for a restored member."""
        self.stop()
        self._serve(None)
        with MongoClient[Document](self._server.uri) as alone:
            alone.admin.command("createRole", "restorer", privileges=[EVERYTHING], roles=[])
            alone.admin.command("grantRolesToUser", "pool-daemon", roles=["restorer"])
            alone.drop_database("local")
        self.stop()
        self._serve(SET)

    def _serve(self, name: str | None) -> None:
        self._server = EmbeddedMongod(folder=self._folders[-1], port=self._server.port, replica_set=name)
        self.start()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    place.start()
    yield place
    place.close()


FORMS = {
    "the data restored into a new set": lambda place: place.replace(name=SET),
    "the oplog gone, the data kept": lambda place: place.forget(),
    "another set under the address": lambda place: place.replace(name=OTHER_SET),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("form", "pools"),
    [
        ("the data restored into a new set", 5),
        *(pytest.param(form, 1000, marks=pytest.mark.faults) for form in FORMS),
    ],
)
def test_41_a_set_with_another_history_is_taken_up_without_a_restart(
    form: str, pools: int, place: Place, figures: Figures
) -> None:
    for _ in range(ELECTIONS):
        place.stop()
        place.start()
    with running_daemon(uri=place.uri, database_name=DATABASE, **QUICK) as daemon:
        daemon.wait_for_log(lambda record: record["event"] == "lease_acquired", within_seconds=30, what="a leader")
        wait_for_stream(daemon, 1)
        FORMS[form](place)
        opened = len(daemon.said("stream_opened"))
        with judged(place) as (explorer, ledger):
            lasting = [explorer.draft(Rates(cu=YEAR_SECONDS), [CONTAINER]) for _ in range(pools)]
            explorer.create(lasting)
            due = overdue(explorer, pools) + falling_due(explorer, pools, within_seconds=5)
            explorer.wait_until_gone(ids_of(due), within_seconds=RETURN_SECONDS)
            ledger.settle()
            ledger.assert_untouched(ids_of(lasting))
            late = max(ledger.lateness(ids_of(due)))
            violations = ledger.violations()
        lost = [record["reason"] for record in daemon.said("stream_lost")]
    figures.record(
        41,
        f"a fresh history under a running daemon: {form}",
        trials=len(due),
        violations=violations,
        figure=f"taken up without a restart; late by {late - OVERDUE_SECONDS:.0f} s at most",
    )
    assert violations == []
    assert len(daemon.said("stream_opened")) > opened
    assert lost


@contextmanager
def judged(place: Place) -> Iterator[tuple[Explorer, Ledger]]:
    """Write to what serves in the place now, and judge what is committed there."""
    with MongoClient[Document](place.uri) as client:
        explorer = Explorer(database=client[DATABASE])
        yield explorer, Ledger(client=client, explorer=explorer)
