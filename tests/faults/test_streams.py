"""The change stream ends in every way it can, and what it would have told is never lost for good."""

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from arithmetic_model import Document, Rates
from deadline import wait_until
from explorer import CONTAINER, YEAR_SECONDS, Explorer
from faults.daemons import daemon_on
from faults.figures import Figures
from faults.streams import DEAF, HEARD_SECONDS, expire, kill_stream, wait_for_silence, wait_for_stream
from ledger import Ledger
from pymongo import MongoClient
from pymongo.collection import Collection

from pool_daemon.embedded import EmbeddedMongod


@pytest.mark.parametrize("trials", [2, pytest.param(40, marks=pytest.mark.faults)])
def test_13_a_killed_cursor_is_opened_anew_and_has_missed_nothing(
    trials: int,
    explorer: Explorer,
    ledger: Ledger,
    mongo: MongoClient[Document],
    mongo_uri: str,
    figures: Figures,
) -> None:
    late: list[float] = []
    with daemon_on(mongo_uri, explorer, **DEAF) as daemon:
        ledger.settle()
        for trial in range(trials):
            pool = explorer.buy(Rates(cu=YEAR_SECONDS), [CONTAINER])
            wait_for_stream(daemon, trial + 1)
            kill_stream(mongo, explorer.database.name)
            expired_at = expire(explorer, pool)
            (gone,) = ledger.wait_for_decommissions(pool.workload_ids, within_seconds=HEARD_SECONDS)
            late.append(gone.committed_at - expired_at)
    violations = ledger.violations()
    figures.record(
        13,
        "the stream's cursor killed",
        trials=trials,
        violations=violations,
        figure=f"a change is acted on within {max(late):.2f} s, on average {sum(late) / trials:.2f} s",
    )
    assert violations == []


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["busy", "quiet"])
def test_14_what_went_with_the_history_is_found_by_looking_at_everything(
    kind: str, short_memory: EmbeddedMongod, figures: Figures
) -> None:
    trials = 5
    late: list[float] = []
    with MongoClient[Document](short_memory.uri) as mongo:
        explorer = Explorer(database=mongo["faults"])
        ledger = Ledger(client=mongo, explorer=explorer)
        filler = explorer.workloads if kind == "busy" else mongo["elsewhere"]["things"]
        with daemon_on(short_memory.uri, explorer, **DEAF) as daemon:
            ledger.settle()
            for trial in range(trials):
                expired, topped_up = (explorer.buy(Rates(cu=cu), [CONTAINER]) for cu in (YEAR_SECONDS, 5))
                wait_for_stream(daemon, trial + 1)
                with daemon.frozen():
                    explorer.top_up(topped_up.pool_id, Rates(cu=YEAR_SECONDS))
                    wait_for_silence(mongo, explorer.database.name)
                    expire(explorer, expired)
                    forget(mongo, ledger, filler)
                continued_at = time.time()
                (gone,) = ledger.wait_for_decommissions(expired.workload_ids, within_seconds=HEARD_SECONDS)
                late.append(gone.committed_at - continued_at)
            wait_for_stream(daemon, trials + 1)
        violations = ledger.violations()
    figures.record(
        14,
        f"history lost (286), {kind} collection",
        trials=trials,
        violations=violations,
        figure=f"found all the same within {max(late):.2f} s, on average {sum(late) / trials:.2f} s",
    )
    assert violations == []
    assert len(daemon.said("resume_token_discarded")) == trials


@pytest_asyncio.fixture
async def short_memory(tmp_path: Path) -> AsyncIterator[EmbeddedMongod]:
    """Run a mongod whose log of operations holds a megabyte: what is a few seconds old it has forgotten."""
    async with EmbeddedMongod(folder=tmp_path, options=["--oplogSize=1", "--syncdelay=1"]) as server:
        yield server


def forget(mongo: MongoClient[Document], ledger: Ledger, filler: Collection[Document]) -> None:
    """Write to a collection until the server has forgotten all that was done up to now; the ledger reads on."""
    log = mongo["local"]["oplog.rs"]
    now = log.find_one(sort=[("$natural", -1)]) or {}

    def is_forgotten() -> bool:
        ledger.read()
        filler.update_one({"_id": 0}, {"$set": {"metadata": os.urandom(4_000_000)}}, upsert=True)
        oldest = log.find_one({}, {"ts": 1}, sort=[("$natural", 1)]) or {}
        return bool(oldest["ts"] > now["ts"])

    wait_until(is_forgotten, within_seconds=60, what="the server to forget")
