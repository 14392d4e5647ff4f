"""The parts of grace, which exist only if some type of workload has any: who has how much, and what watches it."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from pool_daemon.clock import Clock
from pool_daemon.expiry.grace_reviewer import GraceReviewer
from pool_daemon.expiry.policies_in_force import PoliciesInForce
from pool_daemon.expiry.work_queue import Cause, WorkQueue
from pool_daemon.guards.gate import Gate
from pool_daemon.notices.parts import NoticeParts
from pool_daemon.settings import Settings
from pool_daemon.settings.notices import lead_seconds
from pool_daemon.store.client import Database
from pool_daemon.store.grace import GraceStore
from pool_daemon.store.grace_decisions import GraceReader
from pool_daemon.store.grace_ender import GraceEnder
from pool_daemon.store.policies import PolicyStore, default_policy
from pool_daemon.store.records import Actor
from pool_daemon.telemetry.grace_watch import GraceWatch
from pool_daemon.telemetry.observer import Observer

Sleep = Callable[[str, float], Coroutine[Any, Any, None]]


class GraceParts:
    """What decides about grace on a database, and what watches it; nothing runs yet.

    `sleep` sleeps as a named job of the timer. Without `notices` nothing waits until an owner was told.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        database: Database,
        notices: NoticeParts | None,
        queue: WorkQueue,
        observer: Observer,
        sleep: Sleep,
    ) -> None:
        self._database = database
        self._queue = queue
        self._observer = observer
        self._sleep = sleep
        self._reviewer: GraceReviewer | None = None
        self.policies = PoliciesInForce(
            source=PolicyStore(database=database),
            default=default_policy(settings.grace),
            changed=self._look_at_all,
            observer=observer,
            sleep=partial(sleep, "policies"),
        )
        waits = settings.grace.until_told and notices is not None
        self.reader = GraceReader(
            store=GraceStore(database=database),
            policy_of=self.policies.of,
            told=notices.outbox.delivered if waits and notices is not None else None,
            lead_seconds=max(map(lead_seconds, settings.notices.before), default=0),
        )
        self._watch = GraceWatch(
            count=self.reader.store.count, observer=observer, sleep=partial(sleep, "pools in grace")
        )

    def tasks(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Return, by name, the tasks that run as long as the daemon does; each is to be awaited."""
        return {"policies": self.policies.run(), "grace watch": self._watch.run()}

    def reviewer(self, *, gate: Gate, clock: Clock, actor: Actor) -> GraceReviewer:
        """Return what ends graces before their time, and writes."""
        self._reviewer = GraceReviewer(
            pools=GraceEnder(database=self._database, grace=self.reader, actor=actor),
            gate=gate,
            clock=clock,
            # As if a resource ended now: what goes by a word of today was not due before, and is not late.
            look_again=partial(self._queue.add_all, cause=Cause.RESOURCE_ENDS),
            observer=self._observer,
            sleep=partial(self._sleep, "grace"),
        )
        return self._reviewer

    def _look_at_all(self) -> None:
        """Have the pools in grace checked, for their ends may have changed; a full scan leaves out those that wait."""
        if self._reviewer is not None:
            self._reviewer.look_at_all()
        self._queue.request_full_scan()
