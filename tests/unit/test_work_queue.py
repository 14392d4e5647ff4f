"""What is checked, in which order, and what rings."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_daemon.expiry.work_queue import MOST_CHANGES, UNKNOWN, Cause, WorkQueue


def test_the_first_pass_is_a_full_scan() -> None:
    assert WorkQueue().take(100).after is None


def test_a_pass_reads_only_behind_what_the_one_before_has_looked_at() -> None:
    queue = WorkQueue()
    queue.take(100)
    queue.done(100)
    assert queue.take(160).after == 100


def test_a_full_scan_requested_during_a_pass_is_not_forgotten_when_the_pass_finishes() -> None:
    queue = WorkQueue()
    queue.take(100)
    queue.request_full_scan()
    queue.done(100)
    assert queue.take(101).after is None


async def test_a_full_scan_that_comes_is_requested_in_time_unless_another_was_made_before() -> None:
    queue = WorkQueue()
    for made_before in (False, True):
        queue.take(100)
        queue.done(100)
        queue.request_full_scan_in(0.05)
        assert (queue.full_scan_is_ahead, queue.full_scan_requested, queue.settled_through) == (True, False, None)
        if made_before:
            queue.request_full_scan()
            queue.take(100)
            queue.done(100)
        await asyncio.sleep(0.1)
        assert queue.full_scan_is_ahead == queue.full_scan_requested == (not made_before)


def test_a_clock_that_steps_back_makes_the_pass_a_full_scan_and_the_watermark_follows_it() -> None:
    """What was written meanwhile was judged by a clock that was wrong."""
    queue = WorkQueue()
    queue.take(1000)
    queue.done(1000)
    assert queue.take(400).after is None
    queue.done(400)
    assert queue.take(401).after == 400


def test_nothing_can_have_been_missed_while_a_full_scan_is_requested_or_at_work() -> None:
    queue = WorkQueue()
    queue.take(1000)
    assert queue.settled_through is None
    queue.done(1000)
    queue.take(1060)
    assert queue.settled_through == 1000
    queue.done(1060)
    queue.request_full_scan()
    assert queue.settled_through is None
    queue.put_back(queue.take(1061))
    assert queue.settled_through is None


def test_a_pass_that_failed_leaves_settled_what_was_settled_before() -> None:
    queue = WorkQueue()
    queue.take(1000)
    queue.done(1000)
    queue.put_back(queue.take(1060))
    assert queue.settled_through == 1000


def test_what_a_standby_drops_is_made_up_for_by_a_full_scan() -> None:
    queue = WorkQueue()
    queue.take(1000)
    queue.done(1000)
    queue.add(7, at=900, cause=Cause.CHANGED)
    queue.add_workloads([1, 2])
    queue.clear()
    assert queue.next_at() is None
    work = queue.take(1001)
    assert (work.after, work.by_id, work.workload_ids) == (None, {}, frozenset())


def test_a_pool_is_handed_out_at_its_second_and_not_before() -> None:
    queue = WorkQueue()
    queue.add(7, at=50, cause=Cause.CHANGED)
    assert queue.take(49).by_id == {}
    assert queue.next_at() == 50
    assert queue.take(50).by_id.keys() == {7}
    assert queue.next_at() is None


def test_of_two_entries_for_one_pool_the_earlier_stands() -> None:
    queue = WorkQueue()
    queue.add(7, at=50, cause=Cause.CHANGED)
    queue.add(7, at=20, cause=Cause.CHANGED)
    queue.add(7, at=90, cause=Cause.CHANGED)
    assert queue.take(20).by_id.keys() == {7}
    assert queue.take(100).by_id == {}


def test_what_is_added_during_a_pass_is_kept_for_the_next_even_if_it_is_the_same() -> None:
    queue = WorkQueue()
    queue.add(7, at=10, cause=Cause.CHANGED)
    queue.take(10)
    queue.add(7, at=10, cause=Cause.CHANGED)
    queue.done(10)
    assert queue.take(10).by_id.keys() == {7}


def test_a_pass_that_failed_gives_everything_back() -> None:
    queue = WorkQueue()
    queue.add(7, at=10, cause=Cause.CHANGED)
    queue.add_workloads([70])
    work = queue.take(10)
    queue.put_back(work)
    assert queue.take(10) == work


def test_a_changed_pool_has_been_due_since_it_was_to_be_checked() -> None:
    queue = WorkQueue()
    queue.add(7, at=10, cause=Cause.CHANGED)
    assert queue.take(15).by_id == {7: 10}


def test_a_pool_that_is_tried_again_has_been_due_as_long_as_before() -> None:
    queue = WorkQueue()
    queue.add(7, at=10, cause=Cause.CHANGED)
    for at in (10, 20, 30):
        assert queue.take(at).by_id == {7: 10}
        queue.add_all({7: at + 10}, cause=Cause.RETRY)
    assert queue.next_at() == 40


def test_of_a_pool_that_is_tried_again_and_was_not_entered_before_it_is_unknown_since_when_it_was_due() -> None:
    queue = WorkQueue()
    queue.add_all({7: 20}, cause=Cause.RETRY)
    queue.add(7, at=10, cause=Cause.CHANGED)
    assert queue.next_at() == 10
    assert queue.take(10).by_id == {7: UNKNOWN}
    queue.add(7, at=30, cause=Cause.CHANGED)
    assert queue.take(30).by_id == {7: 30}


def test_of_a_pool_that_was_missed_it_is_unknown_since_when_it_was_due() -> None:
    queue = WorkQueue()
    queue.add(7, at=10, cause=Cause.MISSED)
    assert queue.next_at() == 10
    work = queue.take(10)
    assert work.by_id == {7: UNKNOWN}


def test_a_pool_that_is_tried_again_and_given_back_keeps_its_second() -> None:
    queue = WorkQueue()
    queue.add_all({7: 20}, cause=Cause.RETRY)
    queue.put_back(queue.take(20))
    assert queue.next_at() == 20


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 100))), st.integers(0, 100))
def test_every_pool_is_handed_out_exactly_once_at_its_earliest_entry(entries: list[tuple[int, int]], now: int) -> None:
    queue = WorkQueue()
    earliest: dict[int, int] = {}
    for pool_id, at in entries:
        queue.add(pool_id, at=at, cause=Cause.CHANGED)
        earliest[pool_id] = min(at, earliest.get(pool_id, at))
    due = {pool_id for pool_id, at in earliest.items() if at <= now}
    assert queue.take(now).by_id.keys() == due
    assert queue.next_at() == min((at for at in earliest.values() if at > now), default=None)
    assert queue.take(100).by_id.keys() == earliest.keys() - due


def test_a_check_of_any_pool_is_pending_while_a_pass_is_at_work_and_afterwards_only_of_those_entered() -> None:
    """What it read may have changed before it could ask for a later look."""
    queue = WorkQueue()
    for end in (lambda _: queue.done(100), queue.put_back):
        work = queue.take(100)
        assert queue.may_be_checked_later(7)
        end(work)
        assert not queue.may_be_checked_later(7)
    queue.add_all({7: 200}, cause=Cause.RESOURCE_ENDS)
    assert queue.may_be_checked_later(7)
    assert not queue.may_be_checked_later(8)


def test_where_very_many_pools_change_a_full_scan_takes_their_place() -> None:
    queue = WorkQueue()
    queue.take(1)
    queue.done(1)
    for pool_id in range(2 * MOST_CHANGES):
        queue.add(pool_id, at=1, cause=Cause.CHANGED)
    assert queue.full_scan_requested
    assert len(queue.take(1).by_id) == MOST_CHANGES


def test_pools_that_are_tried_again_take_no_room_from_those_that_change() -> None:
    queue = WorkQueue()
    queue.take(1)
    queue.done(1)
    queue.add_all(dict.fromkeys(range(MOST_CHANGES), 1), cause=Cause.RETRY)
    changed = range(MOST_CHANGES // 2, 2 * MOST_CHANGES)
    queue.add_all(dict.fromkeys(changed, 1), cause=Cause.CHANGED)
    assert not queue.full_scan_requested
    assert len(queue.take(1).by_id) == 2 * MOST_CHANGES


def test_changes_that_wait_for_an_unfinished_pass_count_until_they_are_tried_again() -> None:
    queue = WorkQueue()
    queue.take(1)
    queue.done(1)
    queue.add_all(dict.fromkeys(range(MOST_CHANGES), 1), cause=Cause.CHANGED)
    queue.put_back(queue.take(1))
    queue.add(MOST_CHANGES, at=1, cause=Cause.CHANGED)
    assert queue.full_scan_requested
    queue.take(1)
    queue.done(1)
    queue.add_all(dict.fromkeys(range(MOST_CHANGES - 1), 1), cause=Cause.CHANGED)
    queue.add(0, at=1, cause=Cause.RETRY)
    queue.add_all({MOST_CHANGES: 1, MOST_CHANGES + 1: 1}, cause=Cause.CHANGED)
    assert not queue.full_scan_requested


def test_where_very_many_workloads_change_a_full_scan_takes_their_place() -> None:
    queue = WorkQueue()
    queue.take(1)
    queue.done(1)
    queue.add_workloads(range(MOST_CHANGES + 1))
    assert queue.full_scan_requested
    assert not queue.take(1).workload_ids


LATER = 1_000


async def rings(queue: WorkQueue) -> bool:
    """Whether the queue has rung already: the event is set, so the wait does not even reach the timeout of nothing."""
    return await queue.wait(within_seconds=0)


@pytest.fixture
def armed() -> WorkQueue:
    """A queue that is armed for an end at `LATER`, and silent."""
    queue = WorkQueue()
    queue.disarm()
    queue.arm(LATER, pool_id=7)
    return queue


class TestRinging:
    async def test_what_was_armed_is_shown_and_replaced(self, armed: WorkQueue) -> None:
        assert (armed.deadline, armed.armed_pool_id) == (LATER, 7)
        armed.disarm()
        assert (armed.deadline, armed.armed_pool_id) == (None, None)
        armed.arm(LATER + 1)
        assert (armed.deadline, armed.armed_pool_id) == (LATER + 1, None)
        assert not await rings(armed)

    @pytest.mark.parametrize("disarmed", [False, True])
    async def test_a_ring_before_the_wait_is_not_lost(self, armed: WorkQueue, *, disarmed: bool) -> None:
        if disarmed:
            armed.disarm()
        armed.ring()
        if disarmed:
            armed.arm(LATER)
        assert await rings(armed)

    async def test_a_full_scan_rings(self, armed: WorkQueue) -> None:
        armed.request_full_scan()
        assert await rings(armed)
        assert armed.disarm()

    @pytest.mark.parametrize(("at", "expected"), [(LATER - 1, True), (LATER, False), (LATER + 1, False)])
    async def test_an_end_rings_if_it_comes_before_what_is_armed(
        self, armed: WorkQueue, at: int, *, expected: bool
    ) -> None:
        armed.expect(at)
        assert await rings(armed) is expected

    async def test_any_end_rings_while_nothing_is_known_to_fall_due(self) -> None:
        queue = WorkQueue()
        queue.disarm()
        queue.arm(None)
        queue.expect(2.0**62)
        assert await rings(queue)

    @pytest.mark.parametrize(("deadline", "expected"), [(25, True), (20, False), (15, False), (None, True)])
    async def test_an_end_expected_while_disarmed_rings_if_it_comes_before_the_deadline_then_armed(
        self, deadline: int | None, *, expected: bool
    ) -> None:
        queue = WorkQueue()
        queue.disarm()
        for at in (30, 20, 40):
            queue.expect(at)
        queue.arm(deadline)
        assert await rings(queue) is expected

    async def test_a_pool_added_rings_if_it_is_to_be_checked_before_what_is_armed(self, armed: WorkQueue) -> None:
        armed.add(8, at=LATER, cause=Cause.CHANGED)
        assert not await rings(armed)
        armed.add(8, at=LATER - 1, cause=Cause.RETRY)
        assert await rings(armed)

    async def test_workloads_added_ring(self, armed: WorkQueue) -> None:
        armed.add_workloads([70])
        assert await rings(armed)

    @pytest.mark.parametrize(("at", "expected"), [(LATER - 1, True), (LATER, False)])
    async def test_a_pool_added_while_disarmed_rings_if_it_comes_first(
        self, armed: WorkQueue, at: int, *, expected: bool
    ) -> None:
        armed.disarm()
        armed.add(8, at=at, cause=Cause.CHANGED)
        armed.arm(LATER, pool_id=7)
        assert (armed.deadline, armed.armed_pool_id) == (LATER, 7)
        assert await rings(armed) is expected
        assert not armed.disarm()

    async def test_what_a_failed_pass_put_back_waits_for_the_instant_that_is_armed(self, armed: WorkQueue) -> None:
        """Else a pass that fails would be repeated without a pause."""
        armed.add(8, at=1, cause=Cause.CHANGED)
        armed.disarm()
        armed.put_back(armed.take(1))
        armed.arm(LATER)
        assert armed.deadline == LATER
        assert not await rings(armed)

    async def test_only_pools_added_by_id_leave_the_known_deadline_valid(self, armed: WorkQueue) -> None:
        armed.add(8, at=1, cause=Cause.CHANGED)
        armed.add_workloads([70])
        assert not armed.disarm()
        armed.arm(LATER)
        armed.add(9, at=1, cause=Cause.CHANGED)
        armed.expect(LATER - 1)
        assert armed.disarm()
        assert not armed.disarm()
