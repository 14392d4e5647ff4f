"""The address of MongoDB asks for less safety than the daemon needs: it is refused, or has no effect."""

from uuid import uuid4

import pytest
from arithmetic_model import Document
from daemon_process import DaemonProcess
from explorer import Explorer
from faults.daemons import STORM, daemon_on
from faults.figures import Figures
from faults.pools import falling_due, ids_of, overdue
from faults.three_members import ThreeMembers
from ledger import Ledger
from pymongo import MongoClient

from pool_daemon.errors import ExitCode

DONE_SECONDS = 60

REFUSED = [
    *("tls=tru", "tls", "TLS=1"),
    *("tsl=true", "readpreferense=secondary", "retryWrite=false", "nonsense=1"),
    *("readPreference=fastest", "w=-1", "retryWrites=perhaps", "maxPoolSize=many", "journal=maybe"),
    *("w=1&w=majority", "readPreference=primary;readpreference=secondary"),
]
"""What the driver alone would leave out with a warning, or understand otherwise than it was meant."""

HARMLESS = [
    "readPreference=secondaryPreferred",
    "readPreference=nearest&readPreferenceTags=dc:nowhere&maxStalenessSeconds=90",
    "readConcernLevel=local",
    "readConcernLevel=linearizable",
    "w=0",
    "w=1&journal=false",
    "w=3&wtimeoutMS=1",
    "retryWrites=false&retryReads=false",
    "timeoutMS=1",
    "socketTimeoutMS=1&connectTimeoutMS=1&serverSelectionTimeoutMS=1&waitQueueTimeoutMS=1",
    "maxPoolSize=1&minPoolSize=1&maxIdleTimeMS=1&maxConnecting=1",
    "heartbeatFrequencyMS=86400000&localThresholdMS=0",
    "uuidRepresentation=pythonLegacy&appName=another",
]
AT_ONCE = "readPreference=secondaryPreferred&readConcernLevel=local&w=0&retryWrites=false&timeoutMS=1&maxPoolSize=1"


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("refused", "harmless", "pools"),
    [
        (["tls=tru", "w=1&w=majority"], [AT_ONCE], 10),
        pytest.param(REFUSED, HARMLESS, 200, marks=pytest.mark.faults),
    ],
    ids=["some", "all"],
)
def test_39_an_address_that_would_weaken_the_daemon_is_refused_or_has_no_effect(
    refused: list[str],
    harmless: list[str],
    pools: int,
    explorer: Explorer,
    ledger: Ledger,
    mongo_uri: str,
    figures: Figures,
) -> None:
    waiting = overdue(explorer, pools)
    codes = [exit_code(f"{mongo_uri}&{options}", explorer) for options in refused]
    ledger.assert_untouched(ids_of(waiting))
    late: list[float] = []
    for options in harmless:
        with daemon_on(f"{mongo_uri}&{options}", explorer, **STORM) as daemon:
            explorer.wait_until_gone(ids_of(waiting), within_seconds=DONE_SECONDS)
            due = falling_due(explorer, pools, within_seconds=1)
            explorer.wait_until_gone(ids_of(due), within_seconds=DONE_SECONDS)
            assert daemon.said("address_options_ignored")
        late += ledger.lateness(ids_of(due))
        waiting = overdue(explorer, pools)
    with daemon_on(mongo_uri, explorer, **STORM):
        explorer.wait_until_gone(ids_of(waiting), within_seconds=DONE_SECONDS)
    violations = ledger.violations()
    figures.record(
        39,
        "an address that would weaken the daemon",
        trials=len(refused) + len(harmless),
        violations=violations,
        figure=f"{len(refused)} refused with exit code 78; with the others late by {max(late):.2f} s at most",
    )
    assert violations == []
    assert codes == [ExitCode.CONFIGURATION] * len(refused)


@pytest.mark.timeout(300)
@pytest.mark.faults
def test_39_an_address_that_asks_for_unsafe_writes_loses_nothing_with_a_primary(
    three: ThreeMembers, figures: Figures
) -> None:
    kills = 3
    with MongoClient[Document](three.uri, w="majority") as client:
        explorer = Explorer(database=client[f"addresses-{uuid4().hex[:8]}"])
        ledger = Ledger(client=client, explorer=explorer)
        with daemon_on(f"{three.uri}&{AT_ONCE}", explorer, **STORM):
            ledger.settle()
            due = []
            for _ in range(kills):
                due += falling_due(explorer, 100, within_seconds=4)
                three.kill_primary()
                three.mend()
            explorer.wait_until_gone(ids_of(due), within_seconds=DONE_SECONDS)
        violations = ledger.violations()
        late = max(ledger.lateness(ids_of(due)))
    figures.record(
        39,
        "the same while the primary is killed -9",
        trials=kills,
        violations=violations,
        figure=f"late by {late:.1f} s at most",
    )
    assert violations == []


def exit_code(uri: str, explorer: Explorer) -> int:
    with DaemonProcess(uri=uri, database_name=explorer.database.name) as daemon:
        return daemon.process.wait(DONE_SECONDS)
