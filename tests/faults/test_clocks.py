"""This machine's clock is wrong by an hour, from the start or all of a sudden; the database's is right."""

import struct
import subprocess
import time
from pathlib import Path

import pytest
from arithmetic_model import Rates
from deadline import wait_for_instant, wait_until
from explorer import CONTAINER, Explorer
from faults.daemons import STORM, daemon_on
from faults.figures import Figures
from ledger import Ledger

HOUR_SECONDS = 3600
NOTICED_SECONDS = 20
DONE_SECONDS = 60

CHECKED_OFTEN = {"CLOCK__CHECK_SECONDS": "1"}


class WallClock:
    """The clock on the wall as a test's daemons see it: a library in front of theirs moves it, see wall_clock.c."""

    def __init__(self, *, offset: Path) -> None:
        self._offset = offset
        self.step_to(0)

    def step_to(self, offset_seconds: int) -> None:
        """Be so far ahead of the true time from this moment on, or behind it."""
        with self._offset.open("r+b" if self._offset.exists() else "xb", buffering=0) as offset:
            offset.write(struct.pack("<q", offset_seconds))


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the library; without a compiler these tests fail, for a clock that nobody moved proves nothing."""
    library = tmp_path_factory.mktemp("wall-clock") / "wall_clock.so"
    source = Path(__file__).with_name("wall_clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", library, source], check=True)  # noqa: S607  # the machine's own
    return library


@pytest.fixture
def wall_clock(tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch) -> WallClock:
    """Let the test's daemons see a wall clock of their own."""
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("WALL_CLOCK_OFFSET", str(tmp_path / "offset"))
    return WallClock(offset=tmp_path / "offset")


@pytest.mark.faults
@pytest.mark.parametrize("offset_seconds", [HOUR_SECONDS, -HOUR_SECONDS])
def test_19_a_daemon_whose_clock_is_wrong_does_nothing_until_it_is_right(
    offset_seconds: int, wall_clock: WallClock, explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures
) -> None:
    wall_clock.step_to(offset_seconds)
    overdue = [explorer.buy_expired(CONTAINER) for _ in range(20)]
    due = [explorer.buy(Rates(cu=3.5), [CONTAINER]) for _ in range(20)]
    lasting = [explorer.buy(Rates(cu=HOUR_SECONDS / 2), [CONTAINER]) for _ in range(20)]
    everything = [pool.workload_ids[0] for pool in (*overdue, *due, *lasting)]
    with daemon_on(mongo_uri, explorer, **CHECKED_OFTEN) as daemon:
        wait_until(lambda: daemon.said("clock_hold"), within_seconds=NOTICED_SECONDS, what="a word about the clock")
        wait_for_instant(due[-1].empty_at + 1)
        ledger.assert_untouched(everything)
        wall_clock.step_to(0)
        right_at = time.time()
        explorer.wait_until_gone(everything[:40], within_seconds=DONE_SECONDS)
        ledger.settle()
    late = [gone.committed_at - right_at for gone in ledger.read().decommissions[:40]]
    violations = ledger.violations()
    figures.record(
        19,
        f"clock wrong by {offset_seconds:+,} s",
        trials=len(everything),
        violations=violations,
        figure=f"nothing went before it was right, all that was due within {max(late):.1f} s after",
    )
    assert violations == []


@pytest.mark.faults
@pytest.mark.parametrize("offset_seconds", [HOUR_SECONDS, -HOUR_SECONDS])
def test_19_a_clock_that_steps_in_the_middle_of_a_pass_stops_it(
    offset_seconds: int, wall_clock: WallClock, explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures
) -> None:
    count, trials = 3_000, 3
    for _ in range(trials): pass
    overdue = [explorer.draft(Rates(cu=0.5), [CONTAINER], bought_at=int(time.time()) - 60) for _ in range(count)]
    lasting = [explorer.draft(Rates(cu=HOUR_SECONDS / 2), [CONTAINER]) for _ in range(count)]
    explorer.create([*overdue, *lasting])
    with daemon_on(mongo_uri, explorer, **STORM, **CHECKED_OFTEN, EXPIRY__BATCH_WORKLOADS="20") as daemon:
        wait_until(lambda: explorer.running() < 2 * count, within_seconds=DONE_SECONDS, what="the pass to begin")
        wall_clock.step_to(offset_seconds)
        before = explorer.running()
        wait_until(lambda: daemon.said("not_acting"), within_seconds=NOTICED_SECONDS, what="the pass to end")
        held = explorer.running()
        wall_clock.step_to(0)
        explorer.wait_until_gone([pool.workload_ids[0] for pool in overdue], within_seconds=DONE_SECONDS)
        ledger.settle()
    print(daemon.said("clock_hold"), daemon.said("not_acting"), before, held)
    violations = ledger.violations()
    figures.record(
        19,
        f"clock steps by {offset_seconds:+,} s in mid-pass",
        trials=1,
        violations=violations,
        figure=f"{before - held} workloads that were due went after it; {held - count} were held",
    )
    assert violations == []
