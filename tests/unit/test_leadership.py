"""Who acts, and from when until when; time is virtual and the lease is in memory, so every second is exact."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from deadline import until
from lease_in_memory import NEVER_SECONDS, LeaseInMemory, LeaseServer, Trip
from structlog.testing import capture_logs
from telemetry_scene import LogOnly
from virtual_time import Halting, ProcessClock, in_virtual_time

from pool_daemon.errors import StoreRefusedError, StoreUnavailableError
from pool_daemon.guards.leadership import Leadership
from pool_daemon.store.lease import TERMS, LeaseRecord
from pool_daemon.store.records import EventKind, Subject, Why

SECONDS = 15.0
AWAY = StoreUnavailableError("nobody answers")
A_WHILE = 600.0

Document = dict[str, Any]


def now() -> float:
    return asyncio.get_running_loop().time()


class Process:
    """One daemon, as far as the lease goes; it starts at once. `trips` are those of its first requests."""

    def __init__(
        self, server: LeaseServer, identity: str, *, seconds: float = SECONDS, trips: tuple[Trip, ...] = ()
    ) -> None:
        coming = iter(trips)
        store = LeaseInMemory(server=server, identity=identity, seconds=seconds, next_trip=lambda: next(coming, Trip()))
        self.leadership = Leadership(
            store=store,
            clock=ProcessClock(),
            on_acquired=lambda: self.opened_at.append(now()),
            observer=LogOnly(),
            record=self._record,
        )
        self.take_overs: list[tuple[int | None, str]] = []
        self.opened_at: list[float] = []
        self.halts_seconds = 0.0
        self.task = asyncio.create_task(self._run())

    @property
    def is_open(self) -> bool:
        return self.leadership.closed_by() is None

    def kill(self) -> None:
        self.task.cancel()

    async def opens(self, *, within_seconds: float) -> float:
        """Wait for the gate to open; return how long that took."""
        return await seconds_until(lambda: self.is_open, within_seconds, "the gate opens")

    async def closes(self, *, within_seconds: float) -> float:
        """Wait for the gate to shut; return how long that took."""
        return await seconds_until(lambda: not self.is_open, within_seconds, "the gate shuts")

    def _record(self, kind: EventKind, _subject: Subject, why: Why) -> None:
        assert kind is EventKind.TOOK_OVER
        self.take_overs.append((self.leadership.term, why.reason))

    async def _run(self) -> None:
        await Halting(self.leadership.run(), pause_seconds=lambda: self.halts_seconds)


async def seconds_until(condition: Callable[[], bool], within_seconds: float, what: str) -> float:
    started_at = now()
    await until(condition, within_seconds=within_seconds, what=what, every_seconds=0.001)
    return now() - started_at


async def leader_and_standby(server: LeaseServer) -> tuple[Process, Process]:
    leader = Process(server, "a")
    await leader.opens(within_seconds=0.01)
    standby = Process(server, "b")
    await asyncio.sleep(1)
    assert not standby.is_open
    return leader, standby


def entries(logs: list[Any], event: str) -> list[Any]:
    return [entry for entry in logs if entry["event"] == event]


@in_virtual_time
async def test_before_it_has_heard_from_the_database_the_gate_is_shut() -> None:
    leadership = Process(LeaseServer(), "a").leadership
    assert leadership.closed_by() == "standby"
    assert (leadership.term, leadership.holder) == (None, None)


@in_virtual_time
async def test_the_first_daemon_acts_at_once() -> None:
    with capture_logs() as logs:
        leader = Process(LeaseServer(), "a")
        await leader.opens(within_seconds=0.01)
    assert (leader.leadership.term, leader.leadership.holder) == (1, "a")
    assert logs == [
        {
            "event": "lease_acquired",
            "log_level": "info",
            "term": 1,
            "previous_holder": None,
            "reason": "unclaimed",
        }
    ]


@in_virtual_time
async def test_of_two_daemons_one_acts_and_the_other_knows_who_and_says_so_once() -> None:
    with capture_logs() as logs:
        leader, standby = await leader_and_standby(LeaseServer())
        await asyncio.sleep(A_WHILE)
    assert leader.is_open
    assert (standby.leadership.closed_by(), standby.leadership.term, standby.leadership.holder) == (
        "standby",
        None,
        "a",
    )
    assert [entry["event"] for entry in logs] == ["lease_acquired", "standby"]
    assert len(leader.opened_at) == 1


@in_virtual_time
async def test_of_fifty_daemons_that_start_together_one_acts() -> None:
    server = LeaseServer()
    processes = [Process(server, f"process-{number}") for number in range(50)]
    for _ in range(200):
        await asyncio.sleep(0.1)
        assert sum(process.is_open for process in processes) == 1


@in_virtual_time
async def test_a_holder_that_dies_is_followed_when_its_lease_expires_and_not_before() -> None:
    server = LeaseServer()
    leader, standby = await leader_and_standby(server)
    await asyncio.sleep(100)
    leader.kill()
    assert server.document is not None
    left_seconds = (server.document["expires_at"] - server.now()).total_seconds()
    with capture_logs() as logs:
        waited_seconds = await standby.opens(within_seconds=SECONDS)
    assert left_seconds <= waited_seconds < left_seconds + 0.01
    assert standby.leadership.term == 2
    [acquired] = entries(logs, "lease_acquired")
    assert (acquired["previous_holder"], acquired["reason"]) == ("a", "expired")


@in_virtual_time
async def test_each_take_over_is_recorded_once_in_its_term_and_no_renewal_is() -> None:
    server = LeaseServer()
    leader, standby = await leader_and_standby(server)
    assert leader.take_overs == [(1, "the lease was unclaimed")]
    await asyncio.sleep(A_WHILE)
    leader.kill()
    await standby.opens(within_seconds=2 * SECONDS)
    await asyncio.sleep(A_WHILE)
    assert leader.take_overs == [(1, "the lease was unclaimed")]
    assert standby.take_overs == [(2, "the lease was expired, held by a before")]


@in_virtual_time
async def test_a_holder_that_stops_in_order_is_followed_within_a_second() -> None:
    leader, standby = await leader_and_standby(LeaseServer())
    with capture_logs() as logs:
        await leader.leadership.release()
        assert not leader.is_open
        assert await standby.opens(within_seconds=1) < 0.6
    assert [entry["event"] for entry in logs] == ["lease_released", "lease_acquired"]
    assert logs[1]["reason"] == "released"


@in_virtual_time
async def test_once_released_it_never_acts_again_and_run_returns() -> None:
    leader = Process(LeaseServer(), "a")
    await leader.opens(within_seconds=0.01)
    await leader.leadership.release()
    async with asyncio.timeout(SECONDS):
        await leader.task
    assert not leader.is_open


@in_virtual_time
async def test_a_standby_that_stops_leaves_the_lease_to_its_holder() -> None:
    leader, standby = await leader_and_standby(LeaseServer())
    with capture_logs() as logs:
        await standby.leadership.release()
        await asyncio.sleep(A_WHILE)
    assert leader.is_open
    assert logs == []


@in_virtual_time
async def test_a_lease_that_is_just_being_taken_when_the_daemon_stops_is_released_too() -> None:
    server = LeaseServer()
    stopping = Process(server, "a", trips=(Trip(), Trip(back_seconds=3)))
    await asyncio.sleep(1)
    await stopping.leadership.release()
    stopping.kill()
    assert stopping.opened_at == []
    await Process(server, "b").opens(within_seconds=0.01)


@in_virtual_time
async def test_a_renewal_that_is_overtaken_by_the_release_finds_nothing_to_renew() -> None:
    server = LeaseServer()
    leader = Process(server, "a", trips=(Trip(), Trip(), Trip(there_seconds=9)))
    await asyncio.sleep(5.5)  # the renewal is on its way
    leader.kill()
    await leader.leadership.release()
    assert server.document is not None
    await asyncio.sleep(10)
    assert server.document["holder"] is None


@in_virtual_time
async def test_a_database_that_is_away_when_the_daemon_stops_does_not_keep_it() -> None:
    server = LeaseServer()
    leader = Process(server, "a")
    await leader.opens(within_seconds=0.01)
    server.out_of_order = AWAY
    with capture_logs() as logs:
        await leader.leadership.release()
    assert [entry["event"] for entry in logs] == ["lease_not_released"]


@in_virtual_time
async def test_a_restarted_daemon_of_the_same_identity_takes_over_at_once_in_a_new_term() -> None:
    server = LeaseServer()
    killed, standby = await leader_and_standby(server)
    killed.kill()
    restarted = Process(server, "a")
    await restarted.opens(within_seconds=0.01)
    assert restarted.leadership.term == 2
    await asyncio.sleep(A_WHILE)
    assert restarted.is_open
    assert not standby.is_open


@in_virtual_time
async def test_the_older_of_two_of_one_identity_yields_at_its_next_renewal_for_good_and_says_why() -> None:
    server = LeaseServer()
    older = Process(server, "a")
    await older.opens(within_seconds=0.01)
    with capture_logs() as logs:
        newer = Process(server, "a")
        await newer.opens(within_seconds=0.01)
        await older.closes(within_seconds=SECONDS / 3)
        await asyncio.sleep(A_WHILE)
    assert newer.is_open
    assert (len(older.opened_at), len(newer.opened_at)) == (1, 1)
    assert [entry["event"] for entry in logs] == ["lease_acquired", "lease_lost", "standby", "lease_identity_conflict"]
    newer.kill()
    await older.opens(within_seconds=SECONDS)
    assert older.leadership.term == 3


@in_virtual_time
async def test_a_take_whose_answer_is_lost_is_known_for_ones_own_at_the_next_look() -> None:
    leader = Process(LeaseServer(), "a", trips=(Trip(), Trip(back_seconds=NEVER_SECONDS)))
    assert await leader.opens(within_seconds=SECONDS) < SECONDS / 2
    assert leader.leadership.term == 2


@in_virtual_time
async def test_a_holder_cut_off_from_the_database_stops_acting_three_seconds_before_its_lease_expires() -> None:
    server = LeaseServer()
    leader = Process(server, "a")
    await asyncio.sleep(100)
    assert server.document is not None
    left_seconds = (server.document["expires_at"] - server.now()).total_seconds()
    server.out_of_order = AWAY
    with capture_logs() as logs:
        assert await leader.closes(within_seconds=SECONDS) == pytest.approx(left_seconds - 3, abs=0.01)
        await asyncio.sleep(SECONDS)
    [lost] = entries(logs, "lease_lost")
    assert (lost["term"], lost["log_level"]) == (1, "warning")
    assert len(entries(logs, "lease_unavailable")) >= 3


@in_virtual_time
async def test_a_holder_that_comes_back_before_anybody_else_goes_on_in_its_term() -> None:
    server = LeaseServer()
    leader = Process(server, "a")
    await leader.opens(within_seconds=0.01)
    server.out_of_order = AWAY
    await asyncio.sleep(A_WHILE)
    server.out_of_order = None
    with capture_logs() as logs:
        await leader.opens(within_seconds=SECONDS / 3)
    assert leader.leadership.term == 1
    assert len(leader.opened_at) == 2
    [acquired] = entries(logs, "lease_acquired")
    assert acquired["reason"] == "renewed"


@in_virtual_time
async def test_a_holder_that_comes_back_too_late_stands_by() -> None:
    server = LeaseServer()
    leader = Process(server, "a", trips=(Trip(), Trip(), *[Trip(there_seconds=NEVER_SECONDS)] * 6))
    await leader.opens(within_seconds=0.01)
    standby = Process(server, "b")
    await standby.opens(within_seconds=SECONDS + 0.01)
    await asyncio.sleep(A_WHILE)
    assert standby.is_open
    assert (leader.leadership.closed_by(), leader.leadership.term, leader.leadership.holder) == ("standby", None, "b")


@in_virtual_time
async def test_one_renewal_that_gets_no_answer_does_not_cost_the_lease() -> None:
    lost = Trip(there_seconds=NEVER_SECONDS)
    leader = Process(LeaseServer(), "a", trips=(Trip(), Trip(), lost, Trip(), Trip(), lost))
    await asyncio.sleep(A_WHILE)
    assert len(leader.opened_at) == 1


@in_virtual_time
async def test_trust_counts_from_when_the_renewal_was_sent_not_from_when_it_was_answered() -> None:
    slow, lost = Trip(back_seconds=4.9), Trip(there_seconds=NEVER_SECONDS)
    leader = Process(LeaseServer(), "a", trips=(Trip(), slow, *[lost] * 20))
    await leader.opens(within_seconds=5)
    await leader.closes(within_seconds=SECONDS)
    assert now() == pytest.approx(12, abs=0.01)


@in_virtual_time
async def test_a_process_that_stood_still_finds_the_gate_shut_the_moment_it_goes_on() -> None:
    server = LeaseServer()
    leader, standby = await leader_and_standby(server)
    leader.halts_seconds = 100
    with capture_logs() as logs:
        await standby.opens(within_seconds=2 * SECONDS)
        assert not leader.is_open
        leader.halts_seconds = 0
        await asyncio.sleep(200)
    assert standby.is_open
    assert [entry["event"] for entry in logs] == ["lease_acquired", "lease_lost", "standby"]


@in_virtual_time
async def test_a_process_that_stood_still_and_lost_nothing_looks_at_everything_again() -> None:
    leader = Process(LeaseServer(), "a")
    await leader.opens(within_seconds=0.01)
    leader.halts_seconds = 100
    await asyncio.sleep(50)
    assert not leader.is_open
    leader.halts_seconds = 0
    with capture_logs() as logs:
        await asyncio.sleep(200)
    assert leader.is_open
    assert len(leader.opened_at) == 2
    assert [entry["event"] for entry in logs] == ["lease_lost", "lease_acquired"]


@in_virtual_time
async def test_a_standby_waits_out_a_database_that_is_away_or_refuses() -> None:
    server = LeaseServer()
    for trouble in (AWAY, StoreRefusedError("not authorized")):
        server.out_of_order = trouble
        standby = Process(server, trouble.args[0])
        with capture_logs() as logs:
            await asyncio.sleep(A_WHILE)
        assert {entry["reason"] for entry in entries(logs, "lease_unavailable")} == {str(trouble)}
        assert not standby.is_open
        server.out_of_order = None
        await standby.opens(within_seconds=SECONDS / 3)
        await standby.leadership.release()


@pytest.mark.parametrize("edited", [{"expires_at": "soon"}, {"term": None}, {"holder": 5}, {"seconds": 0}])
@in_virtual_time
async def test_a_lease_that_cannot_be_read_is_told_and_taken_once_nobody_renewed_it_for_a_whole_term(
    edited: Document,
) -> None:
    server = LeaseServer()
    leader, standby = await leader_and_standby(server)
    leader.kill()
    server.edit(**edited)
    with capture_logs() as logs:
        waited_seconds = await standby.opens(within_seconds=SECONDS + 2)
    assert waited_seconds >= SECONDS
    assert len(entries(logs, "lease_unreadable")) == 1
    assert standby.leadership.term == 2


@in_virtual_time
async def test_a_whole_term_counts_from_when_a_look_was_answered_not_from_when_it_was_sent() -> None:
    server = LeaseServer()
    leader = Process(server, "a")
    await leader.opens(within_seconds=0.01)
    standby = Process(server, "b", trips=(Trip(there_seconds=4),))
    await asyncio.sleep(3.9)
    server.edit(expires_at="soon")
    leader.halts_seconds = A_WHILE
    assert await standby.opens(within_seconds=SECONDS + 2) >= SECONDS


@in_virtual_time
async def test_a_lease_that_cannot_be_read_is_left_to_a_holder_that_renews_it() -> None:
    server = LeaseServer()
    leader, standby = await leader_and_standby(server)
    for _ in range(100):
        server.edit(expires_at="soon")
        await asyncio.sleep(1)
        assert leader.is_open
        assert not standby.is_open


@in_virtual_time
async def test_a_lease_that_vanished_is_not_taken_while_its_holder_may_trust_it() -> None:
    server = LeaseServer()
    leader, standby = await leader_and_standby(server)
    leader.halts_seconds = A_WHILE
    server.document = None
    with capture_logs() as logs:
        assert await standby.opens(within_seconds=SECONDS + 2) >= SECONDS
    assert not leader.is_open
    assert standby.leadership.term == 2
    assert len(entries(logs, "lease_unreadable")) == 1


@in_virtual_time
async def test_a_holder_whose_lease_vanished_stops_acting_at_its_next_renewal() -> None:
    server = LeaseServer()
    leader = Process(server, "a")
    await leader.opens(within_seconds=0.01)
    server.document = None
    await leader.closes(within_seconds=SECONDS / 3 + 0.01)
    assert await leader.opens(within_seconds=SECONDS + 2) >= SECONDS
    assert leader.leadership.term == 2


@in_virtual_time
async def test_what_a_holder_saw_before_it_held_the_lease_does_not_count_afterwards() -> None:
    """The first saw that there was no lease; when it sees that again, another may have taken the lease in between."""
    server = LeaseServer()
    first, second = await leader_and_standby(server)
    first.halts_seconds = 20
    await second.opens(within_seconds=2 * SECONDS)
    server.document = None
    second.halts_seconds = A_WHILE
    first.halts_seconds = 0
    await first.opens(within_seconds=3 * SECONDS)
    assert not second.is_open


@in_virtual_time
async def test_a_lease_that_ends_in_a_year_because_the_database_s_clock_was_wrong_is_taken_all_the_same() -> None:
    server = LeaseServer()
    server.clock_ahead = timedelta(days=365)
    leader, standby = await leader_and_standby(server)
    leader.kill()
    server.clock_ahead = timedelta()
    with capture_logs() as logs:
        assert await standby.opens(within_seconds=SECONDS + 2) > SECONDS - 2
    assert entries(logs, "lease_acquired")[0]["reason"] == "unclaimed"


@in_virtual_time
async def test_a_holder_with_a_longer_lease_is_given_its_time() -> None:
    server = LeaseServer()
    leader = Process(server, "a", seconds=300)
    await leader.opens(within_seconds=0.01)
    standby = Process(server, "b", seconds=5)
    await asyncio.sleep(A_WHILE)
    assert leader.is_open
    assert standby.opened_at == []


@in_virtual_time
async def test_a_lease_of_one_second_works_like_a_long_one() -> None:
    server = LeaseServer()
    leader, standby = Process(server, "a", seconds=1), Process(server, "b", seconds=1)
    await leader.opens(within_seconds=0.01)
    await asyncio.sleep(A_WHILE)
    assert leader.is_open
    leader.kill()
    assert await standby.opens(within_seconds=1.1) > 0.5


@in_virtual_time
async def test_leader_and_standby_know_that_the_lease_is_held_for_as_long_as_it_is() -> None:
    server = LeaseServer()
    leader, standby = await leader_and_standby(server)
    for _ in range(100):
        await asyncio.sleep(1)
        assert unheld_seconds(leader) <= SECONDS / 3
        assert unheld_seconds(standby) < SECONDS / 3 + 0.51
    leader.kill()
    server.out_of_order = AWAY
    await asyncio.sleep(A_WHILE)
    assert unheld_seconds(standby) >= A_WHILE


@in_virtual_time
async def test_a_lease_that_can_be_read_but_not_taken_is_held_by_nobody() -> None:
    server = LeaseServer()
    leader, standby = await leader_and_standby(server)
    leader.kill()
    server.read_only = True
    await asyncio.sleep(A_WHILE)
    assert unheld_seconds(standby) >= A_WHILE - SECONDS
    assert Process(server, "c").leadership.held_monotonic is None


@in_virtual_time
async def test_a_lease_that_nobody_renews_is_held_by_nobody_while_it_lasts() -> None:
    server = LeaseServer()
    leader, standby = await leader_and_standby(server)
    server.edit(holder="somebody", seconds=300.0, expires_at=server.now() + timedelta(seconds=599))
    await asyncio.sleep(200)
    assert [leader.is_open, standby.is_open] == [False, False]
    assert unheld_seconds(leader) > 190
    assert unheld_seconds(standby) > 199
    await asyncio.sleep(110)
    assert leader.is_open or standby.is_open


@in_virtual_time
@pytest.mark.parametrize(
    "edited",
    [
        {"seconds": 1e9},
        {"expires_at": datetime(2130, 1, 1, tzinfo=UTC)},
        {"seconds": 1e9, "expires_at": datetime(2130, 1, 1, tzinfo=UTC)},
        {"seconds": 300.0, "expires_at": datetime(2130, 1, 1, tzinfo=UTC)},
        {"term": TERMS},
        {"term": TERMS - 1, "holder": None},
        {"term": TERMS - 1, "holder": "somebody"},
    ],
    ids=str,
)
async def test_a_lease_that_no_daemon_writes_is_taken_within_two_lengths_and_kept(edited: Document) -> None:
    server = LeaseServer()
    leader, standby = await leader_and_standby(server)
    server.edit(**{"holder": "somebody"} | edited)
    await asyncio.sleep(2 * SECONDS)
    for _ in range(50):
        await asyncio.sleep(1)
        assert sorted([leader.is_open, standby.is_open]) == [False, True]
    assert server.document is not None
    assert 0 < server.document["term"] < TERMS


@in_virtual_time
async def test_a_lease_is_not_waited_for_because_of_its_length_alone() -> None:
    server = LeaseServer()
    leader, standby = await leader_and_standby(server)
    server.edit(holder="somebody", seconds=301.0, expires_at=server.now() + timedelta(seconds=599))
    await asyncio.sleep(2 * SECONDS)
    assert sorted([leader.is_open, standby.is_open]) == [False, True]


@in_virtual_time
async def test_a_successor_ends_what_its_predecessor_left_open_before_it_acts() -> None:
    ended: list[tuple[str | None, bool]] = []

    class Recording(LeaseInMemory):
        async def end_sessions(self, seen: LeaseRecord) -> None:
            ended.append((seen.holder, leadership.closed_by() is None))
            raise AWAY  # and takes over without that

    server = LeaseServer()
    leader = Process(server, "a")
    await leader.opens(within_seconds=0.01)
    store = Recording(server=server, identity="b", seconds=SECONDS)
    leadership = Leadership(store=store, clock=ProcessClock(), on_acquired=lambda: None, observer=LogOnly())
    running = asyncio.create_task(leadership.run())
    leader.kill()
    await seconds_until(lambda: leadership.closed_by() is None, 2 * SECONDS, "the standby takes over")
    assert ended == [("a", False)]
    running.cancel()


def unheld_seconds(process: Process) -> float:
    """Tell for how long a process has not known the lease to be held."""
    assert process.leadership.held_monotonic is not None
    return now() - process.leadership.held_monotonic
