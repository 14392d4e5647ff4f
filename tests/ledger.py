"""What had to be decommissioned when, and what was: the two invariants, judged from the database alone.

I1, never early: no workload goes while its resource lasts, nor after a top-up that was committed first.
I2, never lost: every workload that must go, goes: one transition, one order and one event, all in one commit.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from arithmetic_model import Document, Rates, exhausted, is_readable, ran_out
from deadline import wait_until
from explorer import CONTAINER, Explorer
from oplog import Change, Commit, Oplog
from pymongo import MongoClient
from stories import contradictions

DEPLOY = 3
DELETE = 4

SETTLE_SECONDS = 30
"""More than a loaded machine needs for what is done at once."""

GRACE_SECONDS = 2
"""How long after it is due a workload may still run before it counts as lost."""


class Decommission(NamedTuple):
    """A workload's transition from deploy to delete, with what was true at that moment.

    `is_ordered` and `is_recorded` tell whether the same commit wrote the work order and the event. `since` is when each
    resource of the pool ran out, if no commit has shown it there again.
    """

    workload_id: int
    pool: Document
    committed_at: float
    is_ordered: bool
    is_recorded: bool
    since: Mapping[str, int] = {}


class Outage(NamedTuple):
    """The time for which a resource of a pool was out, until an outside writer put some into it again."""

    pool_id: int
    resource: str
    since: int
    until: int


class TopUp(NamedTuple):
    """A pool's end that was moved by an outside writer, and how many of its workloads had gone by then."""

    pool_id: int
    committed_at: float
    gone_before: int


class Ledger:
    """Replays every commit to the explorer's database since this object was made.

    Workloads of the types in `grace` stay for so many seconds after a resource of theirs ran out.
    """

    def __init__(self, *, client: MongoClient[Document], explorer: Explorer) -> None:
        self.grace: dict[int, int] = {}
        self._explorer = explorer
        self._oplog = Oplog(client=client, database_name=explorer.database.name)
        self._client = client
        self._account = Account()

    def read(self) -> "Account":
        """Replay the commits up to now."""
        for commit in self._oplog.commits():
            self._account.enter(commit)
        return self._account

    def now(self) -> float:
        """Read the server's clock, in unix seconds."""
        local_time: datetime = self._client.admin.command("hello")["localTime"]
        return local_time.replace(tzinfo=UTC).timestamp()

    def wait_for_decommissions(self, workload_ids: list[int], *, within_seconds: float) -> list[Decommission]:
        """Wait until all these workloads are to be deleted; return their transitions in the same order."""
        explorer = self._explorer
        wait_until(
            lambda: set(explorer.next_actions(workload_ids)) == {DELETE},
            within_seconds=within_seconds,
            what=f"{workload_ids} to be decommissioned, but {explorer.next_actions(workload_ids)}",
        )
        # What one member shows already, a majority may have a moment later.
        wait_until(
            lambda: self.read().has_decommissioned(workload_ids), within_seconds=SETTLE_SECONDS, what="a majority of it"
        )
        found = {each.workload_id: each for each in self._account.decommissions}
        return [found[workload_id] for workload_id in workload_ids]

    def lateness(self, workload_ids: Iterable[int]) -> list[float]:
        """Return how many seconds after the end of its pool each of these workloads went, as far as they have gone."""
        wanted = set(workload_ids)
        gone = [each for each in self.read().decommissions if each.workload_id in wanted]
        return [each.committed_at - (self._grace_end(each) or each.pool["empty_at"]) for each in gone]

    def settle(self, empty_at: int | None = None) -> None:
        """Return when the daemon has dealt with what was due before now, or before `empty_at`: a witness goes."""
        now = int(time.time())
        seconds = 0 if empty_at is None else empty_at - now
        if seconds > 0:
            witness = self._explorer.buy(Rates(cu=seconds + 0.5), [CONTAINER], bought_at=now)
        else:
            witness = self._explorer.buy_expired(CONTAINER)
        self.wait_for_decommissions(witness.workload_ids, within_seconds=seconds + SETTLE_SECONDS)

    def assert_untouched(self, workload_ids: list[int], *, next_action: int = DEPLOY) -> None:
        """Hold that nothing was done to these workloads, ordered for them or recorded of them."""
        explorer = self._explorer
        assert explorer.next_actions(workload_ids) == [next_action] * len(workload_ids)
        assert list(explorer.orders.find({"_id": {"$in": workload_ids}})) == []
        assert list(explorer.events.find({"workload_id": {"$in": workload_ids}})) == []

    def violations(self, *, served_until: float | None = None) -> list[str]:
        """List every violation of either invariant, and what the daemon's records tell otherwise than the log.

        What runs empty after `served_until` has no daemon any more.
        """
        violations = self.violations_of_i1() + self.violations_of_i2(served_until=served_until)
        return violations + contradictions(self._explorer, self._account.decommissions)

    def violations_of_i1(self) -> list[str]:
        """Say of each workload that went too early, or that is half gone, why it should not have."""
        account = self.read()
        gone = {each.workload_id for each in account.decommissions}
        early = [
            f"{each.workload_id} at {each.committed_at}: {reason}"
            for each in account.decommissions
            if (reason := self._why_early(each))
        ]
        ordered = [order["_id"] for order in self._explorer.orders.find({"next_action": DELETE})]
        recorded = [event["workload_id"] for event in self._explorer.events.find({"kind": "decommissioned"})]
        return [
            *early,
            *(f"{each}: ordered to be deleted while it still runs" for each in ordered if each not in gone),
            *(f"{each}: an event while it still runs" for each in recorded if each not in gone),
        ]

    def violations_of_i2(self, *, served_until: float | None = None) -> list[str]:
        """Say of each workload that was lost, or that went twice or by halves, what is wrong."""
        account = self.read()
        transitions = Counter(each.workload_id for each in account.decommissions)
        events = Counter(event["workload_id"] for event in self._explorer.events.find({"kind": "decommissioned"}))
        return [
            *(
                f"{workload_id}: {events[workload_id]} events of {count} transitions"
                for workload_id, count in transitions.items()
                if events[workload_id] != count
            ),
            *(f"{workload_id}: ordered again while its order was there" for workload_id in account.ordered_again),
            *self._half_done(account.decommissions),
            *self._left_behind(account, self.now() if served_until is None else served_until),
        ]

    def _why_early(self, each: Decommission) -> str | None:
        if not is_readable(each.pool):
            return f"its pool cannot be read: {each.pool}"
        if each.committed_at < each.pool["empty_at"]:
            return f"its pool lasts until {each.pool['empty_at']}"
        rates = self._explorer.rates[each.workload_id]
        if not exhausted(each.pool, rates, now=int(each.committed_at)):
            return f"nothing that it uses was exhausted: {each.pool}"
        if each.committed_at < (end := self._grace_end(each) or 0):
            return f"it was in grace until {end}: {each.since}"
        return None

    def _grace_end(self, each: Decommission) -> int | None:
        """Return when the grace of a workload was over, None if it had none."""
        workload = self._account.documents["workload"][each.workload_id]
        return self._grace_end_of(workload, each.pool, each.since, now=int(each.committed_at))

    def _grace_end_of(self, workload: Document, pool: Document, since: Mapping[str, int], *, now: int) -> int | None:
        seconds = self.grace.get(workload["workload_type"], 0)
        out = exhausted(pool, self._explorer.rates[workload["_id"]], now=now)
        return min(since[resource] for resource in out) + seconds if out and seconds else None

    def _half_done(self, decommissions: Iterable[Decommission]) -> Iterator[str]:
        workloads, orders = (self._explorer.bytes_by_id(name) for name in ("workload", "workqueue"))
        to_be_deleted = {each["_id"] for each in self._explorer.workloads.find({"next_action": DELETE}, {"_id": 1})}
        for each in decommissions:
            workload_id = each.workload_id
            if not each.is_ordered:
                yield f"{workload_id}: no order in the commit of its transition"
            elif not each.is_recorded:
                yield f"{workload_id}: no event in the commit of its transition"
            elif workload_id in to_be_deleted and workloads[workload_id] != orders.get(workload_id):
                yield f"{workload_id}: its order is not a copy of its document"

    def _left_behind(self, account: "Account", now: float) -> Iterator[str]:
        then = int(now) - GRACE_SECONDS
        users = {workload_id: rates for workload_id, rates in self._explorer.rates.items() if any(rates)}
        for workload_id, rates in users.items():
            workload = account.documents["workload"].get(workload_id, {})
            pool = account.documents["capacity-pools"].get(workload.get("pool_id"), {})
            if workload.get("next_action") != DEPLOY or not is_readable(pool) or pool["empty_at"] > then:
                continue
            since = account.since.get(workload["pool_id"], {})
            if (self._grace_end_of(workload, pool, since, now=then) or 0) > then:
                continue
            if missing := exhausted(pool, rates, now=then):
                yield f"{workload_id}: still runs without {missing} of pool {pool}"


class Account:
    """The state of the database after the commits that were entered, and what they did on the way."""

    def __init__(self) -> None:
        self.documents: defaultdict[str, dict[Any, Document]] = defaultdict(dict)
        self.decommissions: list[Decommission] = []
        self.outages: list[Outage] = []
        self.since: defaultdict[Any, dict[str, int]] = defaultdict(dict)
        self.top_ups: list[TopUp] = []
        self.ordered_again: list[Any] = []
        self._gone: Counter[Any] = Counter()

    def enter(self, commit: Commit) -> None:
        """Apply one commit; note the transitions and the top-ups in it, by the state before it."""
        ordered = {
            change.document_id for change in commit.changes if change.collection == "workqueue" and change.fields
        }
        recorded = {
            change.fields.get("workload_id") for change in commit.changes if change.collection == "pool-daemon-events"
        }
        gone = [
            change.document_id
            for change in commit.changes
            if change.collection == "workload" and self._is_transition(change)
        ]
        for workload_id in gone:
            found = {"is_ordered": workload_id in ordered, "is_recorded": workload_id in recorded}
            self._note_transition(workload_id, commit, found)
        self.ordered_again += [each for each in ordered.difference(gone) if self.documents["workqueue"].get(each)]
        for change in commit.changes:
            if change.collection == "capacity-pools":
                self._note_top_up(change, commit)
            documents = self.documents[change.collection]
            document = documents[change.document_id] = change.applied_to(documents.get(change.document_id, {}))
            if change.collection == "capacity-pools" and is_readable(document):
                self._note_outages(document)

    def has_decommissioned(self, workload_ids: Iterable[int]) -> bool:
        """Tell whether all these workloads went from deploy to delete in what was entered."""
        return {each.workload_id for each in self.decommissions}.issuperset(workload_ids)

    def _note_transition(self, workload_id: int, commit: Commit, found: dict[str, bool]) -> None:
        pool_id = self.documents["workload"][workload_id].get("pool_id")
        pool = dict(self.documents["capacity-pools"].get(pool_id, {}))
        since = dict(self.since[pool_id])
        self.decommissions.append(Decommission(workload_id, pool, commit.committed_at, **found, since=since))
        self._gone[pool_id] += 1

    def _note_outages(self, pool: Document) -> None:
        pool_id, written_at = pool["_id"], int(pool.get("last_updated", 0))
        before = self.since[pool_id]
        self.since[pool_id] = ran_out(pool, before)
        self.outages += [
            Outage(pool_id, resource, since, written_at)
            for resource, since in before.items()
            if since <= written_at and self.since[pool_id][resource] != since
        ]

    def _is_transition(self, change: Change) -> bool:
        before = self.documents["workload"].get(change.document_id, {})
        return before.get("next_action") == DEPLOY and change.fields.get("next_action") == DELETE

    def _note_top_up(self, change: Change, commit: Commit) -> None:
        if "empty_at" in change.fields and change.document_id in self.documents["capacity-pools"]:
            gone = self._gone[change.document_id]
            self.top_ups.append(TopUp(change.document_id, commit.committed_at, gone))
