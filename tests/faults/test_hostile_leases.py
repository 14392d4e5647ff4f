"""The lease says what no daemon writes: whoever may write to the database must not stop everything with it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import Int64
from daemon_process import DaemonProcess
from deadline import wait_until
from endpoint import Endpoint
from explorer import Explorer
from faults.daemons import STORM, daemon_on
from faults.figures import Figures
from faults.pools import falling_due, ids_of
from ledger import Ledger

LEASE_SECONDS = 2
FOREVER = timedelta(days=36_500)
POOLS = 20
WITHIN_SECONDS = 4
"""Twice the lease: some pools run empty while it is waited for, others after it has been taken over."""

DONE_SECONDS = 30
"""A guard only: a lease that makes no sense is waited for once its own length, then taken. The table has the figure."""

UNCLAIMED_SECONDS = 25
"""How long the lease is waited for that makes sense, and that nobody renews: beyond 15 s nobody is ready."""

HOSTILE: Mapping[str, Mapping[str, Any]] = {
    "a billion seconds": {"seconds": 1e9},
    "an end in a hundred years": {"expires_at": datetime.now(UTC) + FOREVER},
    "both": {"seconds": 1e9, "expires_at": datetime.now(UTC) + FOREVER},
    "301 seconds": {"seconds": 301.0},
    "no seconds": {"seconds": 0.0},
    "seconds of text": {"seconds": "15"},
    "a term that does not fit": {"term": Int64(2**63 - 1)},
    "the last term": {"term": Int64(2**53 - 1)},
    "the last term, released": {"term": Int64(2**53 - 1), "holder": None},
    "a term below zero": {"term": Int64(-(2**63))},
    "a term with a fraction": {"term": 7.5},
    "an end of text": {"expires_at": "tomorrow"},
    "no end": {"expires_at": None},
    "a holder that is a number": {"holder": 5},
    "a holder that is a document": {"holder": {"$gt": ""}},
    "a holder that draws on the terminal": {"holder": "\x1b[2J\n", "expires_at": datetime.now(UTC) + FOREVER},
    "sessions of text": {"sessions": "all", "seconds": 1e9},
}


@contextmanager
def two_daemons(uri: str, explorer: Explorer, **settings: str) -> Iterator[list[DaemonProcess]]:
    """Run two daemons, of which one has the lease."""
    settings = {"LEASE__SECONDS": str(LEASE_SECONDS)} | settings
    with (
        daemon_on(uri, explorer, LEASE__IDENTITY="first", **settings) as first,
        daemon_on(uri, explorer, LEASE__IDENTITY="second", **settings) as second,
    ):
        leases = explorer.database["pool-daemon-lease"]
        wait_until(lambda: (leases.find_one() or {}).get("holder"), within_seconds=DONE_SECONDS, what="a holder")
        yield [first, second]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "names",
    [
        ["both", "a term that does not fit", "a holder that is a document"],
        pytest.param(list(HOSTILE), marks=pytest.mark.faults),
    ],
    ids=["some", "all"],
)
def test_40_a_lease_that_no_daemon_writes_is_taken_over(
    names: list[str], explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures
) -> None:
    leases = explorer.database["pool-daemon-lease"]
    late: dict[str, float] = {}
    with two_daemons(mongo_uri, explorer, **STORM):
        ledger.settle()
        for name in names:
            leases.update_one({}, {"$set": {"holder": "somebody", **HOSTILE[name]}})
            pools = falling_due(explorer, POOLS, within_seconds=WITHIN_SECONDS)
            explorer.wait_until_gone(ids_of(pools), within_seconds=DONE_SECONDS)
            late[name] = max(ledger.lateness(ids_of(pools)))
            lease = leases.find_one() or {}
            assert lease["holder"] in {"first", "second"}
            assert 0 < lease["term"] < 2**53
    violations = ledger.violations()
    latest = max(late, key=late.__getitem__)
    figures.record(
        40,
        f"the lease edited to what no daemon writes, lease {LEASE_SECONDS} s",
        trials=len(names),
        violations=violations,
        figure=f"taken over; late by {late[latest]:.1f} s at most ({latest})",
    )
    assert violations == []


@pytest.mark.faults
def test_40_while_a_lease_that_nobody_renews_keeps_all_from_acting_none_is_ready(
    explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures
) -> None:
    with two_daemons(mongo_uri, explorer) as daemons:
        endpoints = [Endpoint(daemon) for daemon in daemons]
        ledger.settle()
        for endpoint in endpoints:
            endpoint.wait_for("/readyz", 200)
        pools = falling_due(explorer, POOLS, within_seconds=WITHIN_SECONDS)
        edited = {
            "holder": "somebody",
            "seconds": float(UNCLAIMED_SECONDS),
            "expires_at": datetime.now(UTC) + timedelta(seconds=590),
        }
        explorer.database["pool-daemon-lease"].update_one({}, {"$set": edited})
        for endpoint in endpoints:
            endpoint.wait_for("/readyz", 503, within_seconds=UNCLAIMED_SECONDS)
            assert "nobody is known to have held the lease" in endpoint.ask("/readyz")[1]
        explorer.wait_until_gone(ids_of(pools), within_seconds=DONE_SECONDS)
        wait_until(
            lambda: [endpoint.ask("/readyz")[0] for endpoint in endpoints] == [200, 200],
            within_seconds=DONE_SECONDS,
            what="both ready again",
        )
    violations = ledger.violations()
    figures.record(
        40,
        f"a lease of {UNCLAIMED_SECONDS} s that nobody renews and that ends in ten minutes",
        trials=1,
        violations=violations,
        figure=f"none ready meanwhile; late by {max(ledger.lateness(ids_of(pools))):.0f} s at most",
    )
    assert violations == []
