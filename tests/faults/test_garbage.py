"""Bad documents of every kind, by the thousand: they are left as they are, and everybody else is served."""

import random
import time

import pytest
from arithmetic_model import Document, Rates
from bson import encode
from explorer import CONTAINER, YEAR_SECONDS, Explorer
from faults.daemons import daemon_on
from faults.figures import Figures
from faults.garbage import KINDS, broken_pool, broken_workload, litter, odd_workload, without_id
from ledger import Ledger

DONE_SECONDS = 90
HOUR_SECONDS = 3600
MOST = 0.95
"""Of what is bad, this part has an id at least."""


BUSY = {
    "BRAKE__MIN_POOLS": "1000000",
    "LEASE__SECONDS": "1",
    "RECONCILE__INTERVAL_SECONDS": "0.5",
    "RECONCILE__CONFIRM_SECONDS": "1",
}
"""Every part looks at everything again and again."""

OWN_COLLECTIONS = (
    "pool-daemon-brake",
    "pool-daemon-events",
    "pool-daemon-lease",
    "pool-daemon-quarantine",
)


class Heap:
    """Garbage, and what is good among it; it remembers which workloads have to go and what must stay as it is."""

    def __init__(self, *, explorer: Explorer, chance: random.Random) -> None:
        self.good: list[int] = []
        self._bad_pools: list[Document] = []
        self._bad_workloads: list[Document] = []
        self._explorer = explorer
        self._chance = chance

    @property
    def bad(self) -> int:
        """How many documents must stay as they are."""
        return len(self._bad_pools) + len(self._bad_workloads)

    def grow(self, count: int) -> None:
        """Write so many more pools, run empty an hour ago: of five two are bad, and two have a bad workload."""
        pools: list[Document] = []
        workloads: list[Document] = []
        for lot in self._chance.choices(["bad pool", "bad workload", "good"], [2, 2, 1], k=count):
            kind, fields = self._chance.choice(KINDS)
            bought_at = int(time.time()) - HOUR_SECONDS
            draft = self._explorer.draft(Rates(0.5, 0.05, 0.5), [kind, kind], bought_at=bought_at)
            pool = draft.document
            first, second = (odd_workload(workload, self._chance) for workload in draft.workloads)
            if lot == "bad pool":
                if self._chance.random() < MOST:
                    pool = broken_pool(pool, self._chance)
                else:
                    pool = without_id(pool, self._chance)
                self._bad_pools.append(pool)
                self._bad_workloads += [first, second]
            elif lot == "bad workload":
                second = broken_workload(second, fields, self._chance)
                self._bad_workloads.append(second)
                self.good.append(first["_id"])
            else:
                self.good += [first["_id"], second["_id"]]
            pools.append(pool)
            workloads += [first, second]
        self._explorer.rates |= {workload["_id"]: Rates() for workload in self._bad_workloads}
        self._explorer.workloads.insert_many(workloads)
        self._explorer.pools.insert_many(pools)

    def spoil(self, count: int) -> None:
        """Turn so many pools that last for a year into bad ones."""
        for _ in range(count):
            draft = self._explorer.buy(Rates(cu=YEAR_SECONDS), [CONTAINER])
            self._bad_pools.append(broken_pool(draft.document, self._chance))
            self._bad_workloads += draft.workloads
            self._explorer.pools.replace_one({"_id": draft.pool_id}, self._bad_pools[-1])
        self._explorer.rates |= {workload["_id"]: Rates() for workload in self._bad_workloads}

    def litter(self, count: int) -> None:
        """Write nonsense where the daemon keeps its own."""
        for name in OWN_COLLECTIONS:
            self._explorer.database[name].insert_many([litter(self._chance) for _ in range(count)])
        self._explorer.database["pool-daemon-lease"].insert_one(litter(self._chance) | {"_id": "leader"})

    def changed(self) -> list[str]:
        """Name the bad documents that are not as they were written."""
        found = {*self._explorer.contents("capacity-pools"), *self._explorer.contents("workload")}
        bad = [*self._bad_pools, *self._bad_workloads]
        return [f"{document['_id']!r} was changed" for document in bad if encode(document) not in found]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("count", [100, pytest.param(4_000, marks=pytest.mark.faults)])
def test_24_garbage_stays_as_it_is_and_what_is_good_among_it_goes(
    count: int, explorer: Explorer, ledger: Ledger, mongo_uri: str, chance: random.Random, figures: Figures
) -> None:
    heap = Heap(explorer=explorer, chance=chance)
    heap.litter(count // 20)
    heap.grow(count // 2)
    with daemon_on(mongo_uri, explorer, **BUSY) as daemon:
        for _ in range(10):
            heap.grow(count // 20)
            heap.spoil(count // 100)
        explorer.wait_until_gone(heap.good, within_seconds=DONE_SECONDS)
        ledger.settle()
    violations = ledger.violations() + heap.changed()
    figures.record(
        24,
        "garbage of every kind",
        trials=heap.bad + len(heap.good),
        violations=violations,
        figure=f"{len(heap.good):,} were good; crashes: 0, passes failed: {len(daemon.said('pass_failed'))}, "
        f"streams lost: {len(daemon.said('stream_lost'))}",
    )
    assert violations == []
    assert daemon.said("pass_failed") == []
    assert [lost["reason"] for lost in daemon.said("stream_lost")] == []
