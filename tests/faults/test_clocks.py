"""This machine's clock is wrong by an hour, from the start or all of a sudden; the database's is right."""

import time

import pytest
from arithmetic_model import Rates
from deadline import wait_for_instant, wait_until
from explorer import CONTAINER, Explorer
from faults.daemons import STORM, daemon_on
from faults.figures import Figures
from faults.pools import falling_due, ids_of, overdue
from faults.wall_clock import WallClock
from ledger import Ledger

HOUR_SECONDS = 3600
NOTICED_SECONDS = 20
DONE_SECONDS = 60


@pytest.mark.faults
@pytest.mark.parametrize("offset_seconds", [HOUR_SECONDS, -HOUR_SECONDS])
def test_19_a_daemon_whose_clock_is_wrong_does_nothing_until_it_is_right(
    offset_seconds: int, wall_clock: WallClock, explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures
) -> None:
    wall_clock.step_to(offset_seconds)
    going = [*overdue(explorer, 50), *falling_due(explorer, 50, within_seconds=3)]
    lasting = [explorer.buy(Rates(cu=HOUR_SECONDS / 2), [CONTAINER]) for _ in range(50)]
    with daemon_on(mongo_uri, explorer) as daemon:
        wait_until(
            lambda: daemon.said("clock_skew_detected"), within_seconds=NOTICED_SECONDS, what="a word about the clock"
        )
        wait_for_instant(going[-1].empty_at + 1)
        ledger.assert_untouched(ids_of([*going, *lasting]))
        wall_clock.step_to(0)
        right_at = time.time()
        explorer.wait_until_gone(ids_of(going), within_seconds=DONE_SECONDS)
        ledger.settle()
    done_after = max(gone.committed_at for gone in ledger.read().decommissions[: len(going)]) - right_at
    violations = ledger.violations()
    figures.record(
        19,
        f"clock wrong by {offset_seconds:+,} s",
        trials=len(going) + len(lasting),
        violations=violations,
        figure=f"nothing went until it was right, {done_after:.1f} s later all that was due had gone",
    )
    assert violations == []


@pytest.mark.faults
@pytest.mark.parametrize("offset_seconds", [HOUR_SECONDS, -HOUR_SECONDS])
def test_19_a_clock_that_steps_in_mid_pass_stops_it(
    offset_seconds: int, wall_clock: WallClock, explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures
) -> None:
    """Half the pools last for half an hour: to a clock that has gone an hour ahead they have run empty."""
    trials, count = 3, 1_000
    held = 0
    lasting = [explorer.draft(Rates(cu=HOUR_SECONDS / 2), [CONTAINER]) for _ in range(count)]
    explorer.create(lasting)
    with daemon_on(mongo_uri, explorer, **STORM, EXPIRY__BATCH_WORKLOADS="20") as daemon:
        ledger.settle()
        for trial in range(trials):
            storm = overdue(explorer, count)
            wait_until(lambda: explorer.running() < 2 * count, within_seconds=DONE_SECONDS, what="a pass to begin")
            wall_clock.step_to(offset_seconds)
            wait_until(
                lambda: len(daemon.said("expiry_paused")) > trial,  # noqa: B023  # called in this round only
                within_seconds=NOTICED_SECONDS,
                what="the pass to end",
            )
            held += explorer.running() - count
            wall_clock.step_to(0)
            explorer.wait_until_gone(ids_of(storm), within_seconds=DONE_SECONDS)
        ledger.settle()
    violations = ledger.violations()
    figures.record(
        19,
        f"clock steps by {offset_seconds:+,} s in mid-pass",
        trials=trials,
        violations=violations,
        figure=f"of {trials * count:,} pools that were due {held:,} waited until it was right, what lasts stayed",
    )
    assert violations == []
    assert held > 0
