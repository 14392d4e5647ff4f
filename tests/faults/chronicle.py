"""A second judge, for pools that never rest: it looks at every state that a pool was in, not only at the last one."""

from arithmetic_model import Document, exhausted, is_readable
from explorer import Explorer
from ledger import DEPLOY, Account
from oplog import Change, Commit

ALLOWED_SECONDS = 5
"""How long a workload may go on without what it uses before it counts as lost: more than a loaded machine needs."""


class Chronicle:
    """Replays the commits, and holds each state of each pool to the contract for as long as it lasted."""

    def __init__(self, *, explorer: Explorer) -> None:
        self.violations: list[str] = []
        self.latest_seconds = 0.0
        self._explorer = explorer
        self._account = Account()
        self._since: dict[int, float] = {}

    def enter(self, commit: Commit) -> None:
        """Judge the states that a commit ends, then apply it."""
        pool_ids = {pool_id for change in commit.changes if (pool_id := self._pool_of(change)) is not None}
        for pool_id in pool_ids & self._account.documents["capacity-pools"].keys():
            self.end_state(pool_id, commit.committed_at)
        known = len(self._account.decommissions)
        self._account.enter(commit)
        for gone in self._account.decommissions[known:]:
            self._note_lateness(gone.workload_id, gone.pool, gone.committed_at)
        self._since.update(dict.fromkeys(pool_ids, commit.committed_at))

    def end_all(self, at: float) -> None:
        """Judge the states that all pools are in at the unix instant `at`."""
        for pool_id in self._account.documents["capacity-pools"]:
            self.end_state(pool_id, at)

    def end_state(self, pool_id: int, at: float) -> None:
        """Note each workload that still ran at `at`, although what it uses had been gone for too long."""
        pool = self._account.documents["capacity-pools"][pool_id]
        then = at - ALLOWED_SECONDS
        if then < self._since.get(pool_id, 0.0) or not is_readable(pool) or pool["empty_at"] > then:
            return
        for workload in self._account.documents["workload"].values():
            if workload.get("pool_id") != pool_id or workload["next_action"] != DEPLOY:
                continue
            if missing := exhausted(pool, self._explorer.rates[workload["_id"]], now=int(then)):
                self.violations.append(f"{workload['_id']}: still ran at {at} without {missing} of {pool}")

    def _note_lateness(self, workload_id: int, pool: Document, committed_at: float) -> None:
        second = pool["empty_at"]
        while second < committed_at and not exhausted(pool, self._explorer.rates[workload_id], now=second):
            second += 1
        due_at = max(second, self._since.get(pool["_id"], 0.0))
        self.latest_seconds = max(self.latest_seconds, committed_at - due_at)

    def _pool_of(self, change: Change) -> int | None:
        pool_id: int | None = None
        if change.collection == "capacity-pools":
            pool_id = change.document_id
        elif change.collection == "workload":
            pool_id = self._account.documents["workload"].get(change.document_id, change.fields).get("pool_id")
        return pool_id
