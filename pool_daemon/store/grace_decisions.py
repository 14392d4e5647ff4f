"""Grace in a settlement: the records are read with the pools, and decide which workloads stay for now."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pool_daemon.capacity.exhaustion import Evaluation, Resource, evaluate
from pool_daemon.capacity.grace import Ended, GraceDecision, GracePolicy, PoolGrace, View, decide, topped_up
from pool_daemon.capacity.pool import Pool
from pool_daemon.store.grace import GraceRecord, GraceStore
from pool_daemon.store.sessions import Session

PolicyOf = Callable[[int], GracePolicy]
"""Returns the policy of an owner."""

OwnersTold = Callable[[Mapping[int, float], Session | None], Awaitable[set[int]]]
"""Returns the pools whose owners have been told of their end since a unix instant each."""

NO_GRACE = PoolGrace()


@dataclass(frozen=True, slots=True)
class GraceChange:
    """What changes in the record of a pool, by the `pool` as read.

    The grace of the resources `began` spares so many `workloads`, the first of them `until` that unix second.
    """

    record: GraceRecord
    pool: Pool
    began: tuple[Resource, ...] = ()
    workloads: int = 0
    until: int = 0
    ended: tuple[Ended, ...] = ()


@dataclass(frozen=True, slots=True)
class Graces:
    """The records of some pools, and those of them whose owners were not told yet.

    `newest` has, of a pool of which only a part of the workloads is there, the highest id of all of them.
    """

    records: Mapping[int, GraceRecord]
    untold: frozenset[int]
    policy_of: PolicyOf
    newest: Mapping[int, int] = field(default_factory=dict)

    def known(self, pool_id: int) -> PoolGrace:
        """Return what is recorded of a pool."""
        record = self.records.get(pool_id)
        return NO_GRACE if record is None else record.grace

    def evaluate(
        self, as_read: Pool, synced: Pool, workloads: Sequence[Mapping[str, Any]], *, now: int
    ) -> tuple[Evaluation, GraceChange | None]:
        """Decide which workloads of a pool go at the unix second `now`, and what that changes in its record."""
        known = self.known(as_read.pool_id)
        ids = [workload_id for each in workloads if isinstance(workload_id := each.get("_id"), int)]
        view = View(
            as_read=as_read,
            synced=synced,
            now=now,
            known=known,
            newest=self.newest.get(as_read.pool_id, max(ids, default=0)),
            in_part=as_read.pool_id in self.newest,
            told=as_read.pool_id not in self.untold,
        )
        decision = decide(self.policy_of(as_read.customer_tid), view, workloads)
        return decision.evaluation, self.change(as_read, decision)

    def topped_up(self, pool: Pool, *, now: int) -> GraceChange | None:
        """Return what changes in the record of a pool that is not due at the unix second `now`, None if nothing."""
        known = self.known(pool.pool_id)
        return self.change(pool, topped_up(self.policy_of(pool.customer_tid), pool, known, now=now))

    def change(self, pool: Pool, decision: GraceDecision) -> GraceChange | None:
        """Return what a decision changes in the record of a pool, None if nothing.

        One that takes workloads out of grace always does, or an operator who sets another end meanwhile would be too
        late without knowing it.
        """
        former = self.records.get(pool.pool_id, GraceRecord(pool.pool_id, pool.customer_tid, NO_GRACE))
        goes = any(each.grace_ends_at is not None for each in decision.evaluation.exhausted_workloads)
        taken = int(goes and pool.pool_id in self.records)
        if decision.after == former.grace and not taken:
            return None
        spared = [each for each in decision.evaluation.in_grace if set(each.resources).intersection(decision.began)]
        return GraceChange(
            record=replace(
                former,
                customer_tid=pool.customer_tid,
                grace=decision.after,
                decommissions=former.decommissions + taken,
            ),
            pool=pool,
            began=decision.began,
            workloads=len(spared),
            until=min((each.grace_ends_at or 0 for each in spared), default=0),
            ended=decision.ended,
        )


class GraceReader:
    """Reads the records of the pools of a batch; with `told`, also whose owners wait for a notice.

    A notice of an end is written up to `lead_seconds` before it.
    """

    def __init__(
        self, *, store: GraceStore, policy_of: PolicyOf, told: OwnersTold | None = None, lead_seconds: int = 0
    ) -> None:
        self.store = store
        self._policy_of = policy_of
        self._told = told
        self._lead_seconds = lead_seconds

    async def of(self, pool_ids: Sequence[int], *, session: Session | None) -> Graces:
        """Return what decides about the grace of some pools, as part of the session's transaction."""
        records = await self.store.of(pool_ids, session=session)
        untold: frozenset[int] = frozenset()
        if self._told is not None:
            running = {each.pool_id: min(each.grace.since.values()) for each in records.values() if each.grace.since}
            since = {pool_id: float(at - self._lead_seconds) for pool_id, at in running.items()}
            untold = frozenset(running.keys() - (await self._told(since, session) if since else ()))
        return Graces(records, untold, self._policy_of)


def evaluated(
    pool: Pool, synced: Pool, workloads: Sequence[Mapping[str, Any]], *, now: int, graces: Graces | None
) -> tuple[Evaluation, GraceChange | None]:
    """Decide which workloads of a pool, as read and as synced to `now`, go, and what changes in its record of grace."""
    if graces is None:
        return evaluate(synced, workloads, now=now), None
    return graces.evaluate(pool, synced, workloads, now=now)
