"""Two daemons on one database: the one that acts stops acting, or is thought to have stopped, and comes back."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from daemon_process import DaemonProcess
from deadline import wait_for_instant, wait_until
from explorer import Explorer
from faults.daemons import IMPATIENT, STORM, daemon_on
from faults.figures import Figures
from faults.pools import falling_due, ids_of, overdue
from faults.proxy import Proxy
from faults.transactions import transactions_expiring
from ledger import Ledger

LEASE_SECONDS = 15
"""What it is unless the settings say otherwise."""

TAKEOVER_SECONDS = 20
"""A guard beyond the length of the lease; the table has the figures."""

DONE_SECONDS = 60
RELIEF_SECONDS = 150
"""The server gives up a transaction that nobody goes on with after 60 s, at the latest 30 s later."""

MOST_STORMS = 10
"""Until one is shared: it may happen that one daemon is done before the others have begun."""

IN_SMALL_STEPS = STORM | {"EXPIRY__BATCH_WORKLOADS": "50"}


class Pair:
    """Two daemons that run, each with a name in the lease."""

    def __init__(self, *, explorer: Explorer, first: DaemonProcess, second: DaemonProcess) -> None:
        self._leases = explorer.database["pool-daemon-lease"]
        self._daemons = {"first": first, "second": second}

    @property
    def standby(self) -> DaemonProcess:
        """The daemon that stood by at the beginning."""
        return self._daemons["second"]

    @property
    def holder_name(self) -> str | None:
        """Whose the lease is, as far as the database knows."""
        return (self._leases.find_one() or {}).get("holder")

    def holder(self) -> tuple[str, DaemonProcess]:
        """Wait until one of them holds the lease; return its name and itself."""
        wait_until(lambda: self.holder_name in self._daemons, within_seconds=DONE_SECONDS, what="a holder")
        name = self.holder_name or ""
        return name, self._daemons[name]

    def wait_for_takeover(self, name: str) -> float:
        """Wait until the lease is another's than of that name; return how long it took."""
        began_at = time.monotonic()
        wait_until(
            lambda: self.holder_name not in {name, None},
            within_seconds=LEASE_SECONDS + TAKEOVER_SECONDS,
            what=f"another to take over from {name}",
        )
        return time.monotonic() - began_at


@contextmanager
def pair_on(first_uri: str, second_uri: str, explorer: Explorer, **settings: str) -> Iterator[Pair]:
    """Run two daemons, of which the first has the lease at the beginning; both must stop in order at the end."""
    name = explorer.database.name
    with DaemonProcess(uri=first_uri, database_name=name, LEASE__IDENTITY="first", **settings) as first:
        wait_until(lambda: first.said("lease_acquired"), within_seconds=DONE_SECONDS, what="a holder")
        with daemon_on(second_uri, explorer, LEASE__IDENTITY="second", **settings) as second:
            wait_until(lambda: second.said("standby"), within_seconds=DONE_SECONDS, what="a standby")
            yield Pair(explorer=explorer, first=first, second=second)
        if first.is_running:
            first.stop()


@pytest.mark.faults
def test_20_a_standby_takes_the_place_of_a_holder_that_was_killed(
    explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures
) -> None:
    with pair_on(mongo_uri, mongo_uri, explorer) as pair:
        ledger.settle()
        pools = falling_due(explorer, 100, within_seconds=LEASE_SECONDS + 3)
        name, holder = pair.holder()
        holder.process.kill()
        taken_over_after = pair.wait_for_takeover(name)
        explorer.wait_until_gone(ids_of(pools), within_seconds=LEASE_SECONDS + TAKEOVER_SECONDS)
    latest_seconds = max(ledger.lateness(ids_of(pools)))
    violations = ledger.violations()
    figures.record(
        20,
        f"holder killed -9, lease {LEASE_SECONDS} s",
        trials=1,
        violations=violations,
        figure=f"taken over after {taken_over_after:.1f} s, late by {latest_seconds:.1f} s at most",
    )
    assert violations == []


@pytest.mark.timeout(300)
@pytest.mark.faults
def test_20_a_holder_that_was_frozen_for_a_minute_in_mid_pass_stands_by_afterwards(
    explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures
) -> None:
    seconds = 60
    with pair_on(mongo_uri, mongo_uri, explorer, **IN_SMALL_STEPS) as pair:
        name, holder = pair.holder()
        storm = overdue(explorer, 3_000)
        wait_until(lambda: explorer.running() < 2_900, within_seconds=DONE_SECONDS, what="a pass to be under way")
        with holder.frozen():
            frozen_at = time.time()
            assert explorer.running() > 0, "the pass was over before the holder froze"
            pools = falling_due(explorer, 100, within_seconds=seconds - 2)
            taken_over_after = pair.wait_for_takeover(name)
            wait_for_instant(frozen_at + seconds)
        wait_until(lambda: holder.said("lease_lost"), within_seconds=DONE_SECONDS, what="the holder to notice")
        explorer.wait_until_gone([*ids_of(storm), *ids_of(pools)], within_seconds=RELIEF_SECONDS)
    done_after = ledger.read().decommissions[-1].committed_at - frozen_at
    violations = ledger.violations()
    figures.record(
        20,
        f"holder frozen for {seconds} s in mid-pass",
        trials=1,
        violations=violations,
        figure=f"taken over after {taken_over_after:.1f} s; what it had in hand went {done_after:.0f} s after it froze",
    )
    assert violations == []
    assert set(explorer.events.distinct("by")) == {"first", "second"}


@pytest.mark.timeout(300)
@pytest.mark.faults
def test_20_holders_that_freeze_in_mid_pass_and_go_on_do_nothing_twice(
    explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures
) -> None:
    trials, count = 6, 1_000
    settings = IN_SMALL_STEPS | {"LEASE__SECONDS": "1"}
    taken_over_after: list[float] = []
    with (
        transactions_expiring(explorer.database.client, after_seconds=2),
        pair_on(mongo_uri, mongo_uri, explorer, **settings) as pair,
    ):
        for _ in range(trials):
            name, holder = pair.holder()
            storm = overdue(explorer, count)
            wait_until(lambda: explorer.running() < count, within_seconds=DONE_SECONDS, what="a pass to be under way")
            with holder.frozen():
                assert explorer.running() > 0, "the pass was over before the holder froze"
                taken_over_after.append(pair.wait_for_takeover(name))
            explorer.wait_until_gone(ids_of(storm), within_seconds=DONE_SECONDS)
    violations = ledger.violations()
    figures.record(
        20,
        "holder frozen in mid-pass, lease 1 s",
        trials=trials,
        violations=violations,
        figure=f"taken over after {max(taken_over_after):.1f} s at most",
    )
    assert violations == []


@pytest.mark.timeout(300)
@pytest.mark.faults
@pytest.mark.parametrize(("cut_off", "lease_seconds"), [(Proxy.refuse, LEASE_SECONDS), (Proxy.swallow, 5)])
def test_20_a_holder_that_is_cut_off_gives_way_and_stands_by_afterwards(
    cut_off: Callable[[Proxy], None],
    lease_seconds: int,
    explorer: Explorer,
    ledger: Ledger,
    network: Proxy,
    mongo_uri: str,
    figures: Figures,
) -> None:
    settings = IN_SMALL_STEPS | IMPATIENT | {"LEASE__SECONDS": str(lease_seconds)}
    with (
        transactions_expiring(explorer.database.client, after_seconds=2),
        pair_on(network.uri, mongo_uri, explorer, **settings) as pair,
    ):
        name, holder = pair.holder()
        pools = falling_due(explorer, 100, within_seconds=lease_seconds + 3)
        storm = overdue(explorer, 1_500)
        wait_until(lambda: explorer.running() < 1_500, within_seconds=DONE_SECONDS, what="a pass to be under way")
        cut_off(network)
        assert explorer.running() > len(pools), "the pass was over before the holder was cut off"
        taken_over_after = pair.wait_for_takeover(name)
        explorer.wait_until_gone([*ids_of(storm), *ids_of(pools)], within_seconds=lease_seconds + DONE_SECONDS)
        network.heal()
        wait_until(lambda: holder.said("standby"), within_seconds=DONE_SECONDS, what="the first to stand by")
        explorer.wait_until_gone(ids_of(overdue(explorer, 100)), within_seconds=DONE_SECONDS)
    latest_seconds = max(ledger.lateness(ids_of(pools)))
    violations = ledger.violations()
    figures.record(
        20,
        f"holder cut off ({cut_off.__name__}), lease {lease_seconds} s",
        trials=1,
        violations=violations,
        figure=f"taken over after {taken_over_after:.1f} s, late by {latest_seconds:.1f} s at most",
    )
    assert violations == []


@pytest.mark.faults
def test_20_a_standby_rests_while_another_acts(
    explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures
) -> None:
    """What it hears of it may not deal with, and so must not come back to at once."""
    seconds = 5
    with pair_on(mongo_uri, mongo_uri, explorer) as pair:
        explorer.wait_until_gone(ids_of(overdue(explorer, 10)), within_seconds=DONE_SECONDS)
        before = pair.standby.cpu_seconds()
        pools = falling_due(explorer, 20, within_seconds=seconds)
        explorer.wait_until_gone(ids_of(pools), within_seconds=DONE_SECONDS)
        used_seconds = pair.standby.cpu_seconds() - before
    violations = ledger.violations()
    figures.record(
        20,
        "a standby while the other acts",
        trials=1,
        violations=violations,
        figure=f"it took {used_seconds:.1f} s of a processor in {seconds} s",
    )
    assert violations == []
    assert used_seconds < seconds / 5


@pytest.mark.parametrize(("trials", "count"), [(1, 1_000), pytest.param(3, 2_000, marks=pytest.mark.faults)])
def test_20_daemons_that_act_at_once_do_nothing_twice(
    trials: int, count: int, explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures
) -> None:
    """A single pass asks for no lease: this is what two holders would do. They set off together, or one is alone."""
    settings = STORM | {"EXPIRY__BATCH_WORKLOADS": "20"}
    storms = shared = 0
    while storms < trials or (not shared and storms < MOST_STORMS):
        storm = overdue(explorer, count)
        with ExitStack() as stack:
            daemons = [
                stack.enter_context(
                    DaemonProcess("--once", uri=mongo_uri, database_name=explorer.database.name, **settings)
                )
                for _ in range(3)
            ]
            with ExitStack() as frozen:
                for daemon in daemons:
                    daemon.wait_for_first_word(within_seconds=DONE_SECONDS)
                    frozen.enter_context(daemon.frozen())
            for daemon in daemons:
                daemon.wait_for_exit()
        assert explorer.running() == 0
        acting = explorer.events.distinct("by", {"workload_id": {"$in": ids_of(storm)}})
        storms += 1
        shared += len(acting) > 1
    violations = ledger.violations()
    figures.record(
        20,
        "three acting at once, without a lease",
        trials=storms,
        violations=violations,
        figure=f"{storms * count:,} pools; {shared} of {storms} storms were dealt with by more than one of them",
    )
    assert violations == []
    assert shared, "each time one of them did it all"
