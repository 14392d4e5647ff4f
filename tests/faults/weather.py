"""Whatever may happen to two daemons on one database, one thing after the other, at random."""

import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from arithmetic_model import Rates
from daemon_process import DaemonProcess
from deadline import wait_for_instant, wait_until
from explorer import CONTAINER, Explorer
from fail_point import fail_point
from faults.garbage import broken_pool
from faults.pools import overdue
from faults.proxy import Direction, Proxy
from faults.stalls import StallingDaemon
from faults.streams import stream_cursors
from faults.wall_clock import WallClock
from pymongo.errors import AutoReconnect

HOUR_SECONDS = 3600
SHORTEST_SECONDS, LONGEST_SECONDS = 0.1, 3.0
"""How long something goes on, and how long it is calm after it."""

START_SECONDS, RETURN_SECONDS = 30, 30

COMMANDS = (
    "find",
    "aggregate",
    "update",
    "insert",
    "commitTransaction",
    "getMore",
    "findAndModify",
    "count",
    "distinct",
)
ERRORS = (6, 8, 50, 89, 91, 112, 189, 251, 11600, 13436)
"""What a server answers in bad times: out of reach, unknown, too slow, shutting down, a conflict, recovering."""


class Relief:
    """A daemon that is ended in one way or another, and followed by the next; a context manager."""

    def __init__(self, *, uri: str, database_name: str, settings: dict[str, str]) -> None:
        self._uri = uri
        self._database_name = database_name
        self._settings = settings
        self.daemon = self._next()

    def __enter__(self) -> Self:
        self.daemon.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.daemon.__exit__(kind, error, trace)

    def replace(self) -> None:
        """Kill what is left of the daemon, and start another."""
        self.daemon.__exit__(None, None, None)
        self.daemon = self._next()
        self.daemon.__enter__()

    def _next(self) -> DaemonProcess:
        return DaemonProcess(uri=self._uri, database_name=self._database_name, **self._settings)


class Weather:
    """Lets things happen to a daemon that is `watched` and behind the `network`, and lives through all of them; and
    to another, directly connected, that is killed and stopped.
    """

    def __init__(
        self,
        *,
        explorer: Explorer,
        network: Proxy,
        watched: StallingDaemon,
        other: Relief,
        wall_clock: WallClock,
        chance: random.Random,
    ) -> None:
        self.happened: Counter[str] = Counter()
        self._explorer = explorer
        self._mongo = explorer.database.client
        self._network = network
        self._watched = watched
        self._other = other
        self._wall_clock = wall_clock
        self._chance = chance
        self._kinds: tuple[Callable[[], None], ...] = (
            self._freeze,
            self._stall,
            self._kill,
            self._stop,
            self._kill_streams,
            self._cut,
            self._refuse,
            self._swallow,
            self._delay,
            self._fail,
            self._close,
            self._step_down,
            self._step_clock,
            self._storm,
            self._spoil,
        )

    def rage(self, *, until: float) -> None:
        """Let one thing happen after the other until that instant, each of them once before any comes again."""
        while time.time() < until:
            for happen in self._chance.sample(self._kinds, len(self._kinds)):
                if time.time() < until:
                    happen()
                    self.happened[happen.__name__.strip("_")] += 1
                    self._wait()

    def _wait(self) -> None:
        wait_for_instant(time.time() + self._chance.uniform(SHORTEST_SECONDS, LONGEST_SECONDS))

    def _freeze(self) -> None:
        with self._chance.choice([self._watched, self._other.daemon]).frozen():
            self._wait()

    def _stall(self) -> None:
        wait_for_instant(self._watched.stall())

    def _kill(self) -> None:
        self._other.daemon.process.kill()
        self._wait()
        self._other.replace()

    def _stop(self) -> None:
        self._other.daemon.wait_for_first_word(within_seconds=START_SECONDS)
        self._other.daemon.stop()
        self._wait()
        self._other.replace()

    def _kill_streams(self) -> None:
        cursors = {each["cursor"]["cursorId"] for each in stream_cursors(self._mongo, self._explorer.database.name)}
        if cursors:
            self._explorer.database.command({"killCursors": "$cmd.aggregate", "cursors": list(cursors)})

    def _cut(self) -> None:
        self._network.cut()

    def _refuse(self) -> None:
        self._network.refuse()
        self._wait()
        self._network.heal()

    def _swallow(self) -> None:
        self._network.swallow(self._chance.choice(list(Direction)))
        self._wait()
        self._network.heal()

    def _delay(self) -> None:
        self._network.delay(self._chance.uniform(0.01, 0.3))
        self._wait()
        self._network.heal()

    def _fail(self) -> None:
        self._let_fail(errorCode=self._chance.choice(ERRORS))

    def _close(self) -> None:
        self._let_fail(closeConnection=True)

    def _let_fail(self, **data: object) -> None:
        commands = self._chance.sample(COMMANDS, self._chance.randrange(1, len(COMMANDS)))
        mode = {"activationProbability": self._chance.uniform(0.05, 1)}
        with fail_point(self._mongo, *commands, mode=mode, **data):
            self._wait()

    def _step_down(self) -> None:
        with suppress(AutoReconnect):
            self._mongo.admin.command({"replSetStepDown": 1, "force": True})
        wait_until(
            lambda: self._mongo.admin.command("hello")["isWritablePrimary"],
            within_seconds=RETURN_SECONDS,
            what="a primary",
        )

    def _step_clock(self) -> None:
        self._wall_clock.step_to(self._chance.choice([HOUR_SECONDS, -HOUR_SECONDS]))
        self._wait()
        self._wall_clock.step_to(0)

    def _storm(self) -> None:
        overdue(self._explorer, self._chance.randrange(1, 600))

    def _spoil(self) -> None:
        drafts = [self._explorer.draft(Rates(cu=0.5), [CONTAINER]) for _ in range(20)]
        self._explorer.rates |= {workload_id: Rates() for draft in drafts for workload_id in draft.workload_ids}
        self._explorer.workloads.insert_many([workload for draft in drafts for workload in draft.workloads])
        self._explorer.pools.insert_many([broken_pool(draft.document, self._chance) for draft in drafts])
