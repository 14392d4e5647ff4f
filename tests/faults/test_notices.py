"""Notices under faults: each told once an episode, none lost, none for a pool that lasts; and no end waits for any."""

import base64
import random
import time
from collections import Counter
from contextlib import ExitStack

import pytest
from arithmetic_model import Document, Rates
from daemon_process import DaemonProcess
from deadline import wait_until
from explorer import CONTAINER, PLENTY, VOLUME, Explorer
from faults.daemons import RESTARTED, STORM, daemon_on, wait_for_indexes
from faults.figures import Figures
from ledger import Ledger
from webhook_receiver import WebhookReceiver

HALF_AN_HOUR = Rates(cu=1800)
KEY = "whsec_" + base64.b64encode(bytes(range(32))).decode()
PATIENCE_SECONDS = 180
RETURN_SECONDS = 60
"""What waited for a receiver is with it that long after its return."""

LATE_SECONDS = 2.0
"""The suite's own bound on lateness: more would be a violation."""


@pytest.fixture
def receiver() -> WebhookReceiver:
    """Be a receiver that is not there yet, at a port of its own."""
    receiver = WebhookReceiver()
    with receiver.listening():
        pass
    return receiver


def told(receiver: WebhookReceiver) -> dict[str, str]:
    """Make the settings with which the receiver is told, one pool at a time."""
    return {
        "NOTICES__BEFORE": "7d, 1d, 1h",
        "NOTICES__INTERVAL_SECONDS": "0.2",
        "NOTICES__CROWD_POOLS": "1000",
        "WEBHOOK__URL": receiver.url,
        "WEBHOOK__KEYS": KEY,
        "WEBHOOK__TIMEOUT_SECONDS": "1",
    }


def outbox(explorer: Explorer, **query: object) -> list[Document]:
    return list(explorer.database["pool-daemon-outbox"].find(query))


def notices_of(receiver: WebhookReceiver, kind: str = "pool.expiring") -> Counter[int]:
    """Count the events of a type by pool, each id once, as a receiver does that knows what it has seen."""
    return Counter(pool["pool_id"] for event in receiver.events(kind) for pool in event["data"]["pools"])


def wait_for_none_pending(explorer: Explorer, *, within_seconds: float = PATIENCE_SECONDS) -> float:
    began = time.monotonic()
    wait_until(lambda: not outbox(explorer, state="pending"), within_seconds=within_seconds, what="none pending")
    return time.monotonic() - began


@pytest.fixture(params=[3, pytest.param(None, marks=pytest.mark.faults)], ids=["few", "many"])
def kills(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> int:
    """Return how often a daemon is killed: 50 times in a whole run, where there is time for a soak of ten minutes."""
    return int(request.param or min(50, pytestconfig.getoption("soak_seconds") // 5))


@pytest.mark.timeout(900)
def test_48_killed_between_claim_post_and_mark(
    kills: int, explorer: Explorer, mongo_uri: str, receiver: WebhookReceiver, figures: Figures, chance: random.Random
) -> None:
    """A daemon dies in turn once it has claimed an event, once its request is there, and once it is answered."""
    pools: list[int] = []
    settings = told(receiver) | RESTARTED | {"HTTP__PORT": "0"}
    with receiver.listening():
        for number in range(kills):
            with DaemonProcess(uri=mongo_uri, database_name=explorer.database.name, **settings) as daemon:
                if number == 0:
                    wait_for_indexes(explorer)
                pool = explorer.buy(HALF_AN_HOUR, [CONTAINER])
                pools.append(pool.pool_id)
                receiver.on_request = Killer(daemon, pool.pool_id) if number % 3 == 1 else None
                of_it = {"event.data.pools.pool_id": pool.pool_id}
                reached = {
                    0: lambda of_it=of_it: outbox(explorer, attempts={"$gt": 0}, **of_it),
                    1: lambda daemon=daemon: not daemon.is_running,
                    2: lambda pool=pool: notices_of(receiver)[pool.pool_id],
                }[number % 3]
                wait_until(reached, within_seconds=PATIENCE_SECONDS, what=f"the moment of kill {number}")
                time.sleep(chance.uniform(0, 0.005))
                daemon.process.kill()
        receiver.on_request = None
        with daemon_on(mongo_uri, explorer, **settings):
            wait_until(lambda: len(notices_of(receiver)) == kills, within_seconds=PATIENCE_SECONDS, what="all told")
            wait_for_none_pending(explorer)
    counts = notices_of(receiver)
    violations = [pool_id for pool_id in pools if counts[pool_id] != 1]
    again = len(receiver.requests) - len({each.event["id"] for each in receiver.requests})
    figures.record(
        48,
        "killed between the claim of a notice, its request and its mark",
        trials=kills,
        violations=violations,
        figure=f"sent again under the same id: {again}",
    )
    assert violations == []
    assert {entry["state"] for entry in outbox(explorer)} == {"delivered"}


class Killer:
    """Kills a daemon once its request about a pool has come, and before it is answered."""

    def __init__(self, daemon: DaemonProcess, pool_id: int) -> None:
        self._daemon = daemon
        self._pool_id = pool_id

    def __call__(self, event: Document) -> None:
        if self._pool_id in [pool["pool_id"] for pool in event["data"]["pools"]]:
            self._daemon.process.kill()
            self._daemon.process.wait()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("pools", [100, pytest.param(1000, marks=pytest.mark.faults)])
def test_49_pools_topped_up_between_crossing_and_sending_and_three_falls(
    pools: int, explorer: Explorer, mongo_uri: str, receiver: WebhookReceiver, figures: Figures
) -> None:
    with daemon_on(mongo_uri, explorer, **told(receiver), HTTP__PORT="0"):
        wait_for_indexes(explorer)
        bought = [explorer.draft(HALF_AN_HOUR, [CONTAINER]) for _ in range(pools)]
        explorer.create(bought)
        wait_until(lambda: len(outbox(explorer)) == pools, within_seconds=PATIENCE_SECONDS, what="all to be told")
        for pool in bought:
            explorer.top_up(pool.pool_id, Rates(cu=PLENTY))
        with receiver.listening():
            wait_for_none_pending(explorer)
            sent = len(receiver.requests)

            falling = explorer.buy(Rates(cu=PLENTY, su=PLENTY), [CONTAINER, VOLUME])
            for number in range(1, 4):
                explorer.shorten(falling.pool_id, Rates(cu=1800, su=PLENTY))
                wait_until(
                    lambda: notices_of(receiver)[falling.pool_id] >= number,  # noqa: B023
                    within_seconds=PATIENCE_SECONDS,
                    what="a notice",
                )
                explorer.top_up(falling.pool_id, Rates(cu=PLENTY))
                wait_until(
                    lambda: notices_of(receiver, "pool.replenished")[falling.pool_id] >= number,  # noqa: B023
                    within_seconds=PATIENCE_SECONDS,
                    what="its end",
                )
            for _ in range(2):  # a later round tells each of these, and would have told that pool again
                witness = explorer.buy(HALF_AN_HOUR, [CONTAINER]).pool_id
                wait_until(
                    lambda: notices_of(receiver)[witness],  # noqa: B023
                    within_seconds=PATIENCE_SECONDS,
                    what="a later notice",
                )
    three = notices_of(receiver)[falling.pool_id]
    figures.record(
        49,
        "topped up between crossing a lead and the sending of the notice",
        trials=pools,
        violations=sent + abs(three - 3),
        figure=f"notices: {sent}; of three falls and top-ups: {three}",
    )
    assert (sent, three) == (0, 3)


@pytest.fixture(params=[8, pytest.param(None, marks=pytest.mark.faults)], ids=["8-s", "as-long-as-a-soak"])
def seconds(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> int:
    """Return for how long a receiver takes nothing."""
    return int(request.param or pytestconfig.getoption("soak_seconds"))


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("hanging", [False, True], ids=["away", "hanging"])
def test_50_a_receiver_that_is_away_or_hangs_delays_no_end(
    *,
    seconds: int,
    hanging: bool,
    explorer: Explorer,
    ledger: Ledger,
    mongo_uri: str,
    receiver: WebhookReceiver,
    figures: Figures,
) -> None:
    """Meanwhile pools come within a lead, and others end."""
    with ExitStack() as network, daemon_on(mongo_uri, explorer, **told(receiver), **STORM, HTTP__PORT="0"):
        wait_for_indexes(explorer)
        if hanging:
            receiver.hang_seconds = 5
            network.enter_context(receiver.listening())
        until = time.monotonic() + seconds
        ending: list[int] = []
        near: list[int] = []
        while time.monotonic() < until:
            near.append(explorer.buy(HALF_AN_HOUR, [CONTAINER]).pool_id)
            ending += explorer.buy(Rates(cu=2), [CONTAINER]).workload_ids
            time.sleep(max(0.5, seconds / 200))
        explorer.wait_until_gone(ending, within_seconds=20)
        late = max(ledger.lateness(ending))
        if not hanging:
            network.enter_context(receiver.listening())
        receiver.hang_seconds = 0.0
        took = wait_for_none_pending(explorer)
    counts = notices_of(receiver)
    violations = ledger.violations() + [f"{each}: {counts[each]} notices" for each in near if counts[each] != 1]
    figures.record(
        50,
        f"a receiver of notices that {'hangs' if hanging else 'is away'} for {seconds} s",
        trials=len(near) + len(ending),
        violations=violations,
        figure=f"ends late by at most {late:.2f} s; all delivered {took:.0f} s after its return",
    )
    assert violations == []
    assert late < LATE_SECONDS
    assert took < RETURN_SECONDS
