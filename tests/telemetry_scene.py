"""A daemon's telemetry without a daemon: the verbs are spoken by a test."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from deadline import wait_until

from pool_daemon.capacity.exhaustion import Resource
from pool_daemon.clock import Clock, SystemClock
from pool_daemon.events import Event
from pool_daemon.expiry.pass_report import PassReport
from pool_daemon.guards.leadership import Role
from pool_daemon.store.cases import Decommissioned
from pool_daemon.store.pool_counts import Upcoming
from pool_daemon.telemetry.endpoint import Routes, Server
from pool_daemon.telemetry.endpoint.connection import Answer, Response
from pool_daemon.telemetry.endpoint.pool_views import PoolViews
from pool_daemon.telemetry.health import StalenessLimits
from pool_daemon.telemetry.logs import tell
from pool_daemon.telemetry.observer import Observer

PATIENCE = StalenessLimits(database_seconds=30, stream_seconds=40, passes_seconds=150, lease_seconds=30)


class LogOnly:
    """Logs what it is told."""

    def tell(self, event: Event, **fields: Any) -> None:
        tell(event, **fields)


def new_observer(clock: Clock | None = None) -> Observer:
    """Make an observer that has heard nothing yet."""
    return Observer(identity="host-1:4711:a1b2c3", version="1.2.3", clock=clock or SystemClock())


def make_ready(observer: Observer) -> None:
    """Tell everything that a healthy leader tells in its first second."""
    observer.command_finished("ping", 0.001, failed=False)
    observer.indexes_made()
    observer.stream_opened(resumed=False)
    observer.clocks_compared(0.003, agree=True)
    observer.role_seen(Role.LEADER, term=7, leader="host-1:4711:a1b2c3")
    observer.lease_held(observer.status.snapshot.started_monotonic)
    observer.backlog_counted(0)
    observer.pass_finished(PassReport(), seconds=0.04)
    observer.beat(0.0)


def gone(workload_id: int, pool_id: int, *, empty_at: float, workload_type: int = 1) -> Decommissioned:
    """Make a workload that had to go because its pool's compute units had run out."""
    return Decommissioned(workload_id, pool_id, 144, workload_type, "node", (Resource.COMPUTE,), int(empty_at))


def upcoming(pool_id: int, *, in_seconds: float) -> Upcoming:
    """Make a pool that runs empty that much later than now."""
    return Upcoming(pool_id, 100 + pool_id % 89, int(time.time() + in_seconds))


def routes_of(
    observer: Observer,
    *,
    clock: Clock | None = None,
    allowed_hosts: Sequence[str] = (),
    pool_views: PoolViews | None = None,
) -> Routes:
    """Answer from what an observer knows, and from `pool_views`."""
    return Routes(
        observer=observer,
        staleness_limits=lambda: PATIENCE,
        clock=clock or SystemClock(),
        allowed_hosts=allowed_hosts,
        pool_views=pool_views,
    )


def at_once(answer: Answer) -> Response:
    """Return an answer that does not have to be waited for."""
    assert isinstance(answer, Response)
    return answer


@contextmanager
def served(observer: Observer, *, patience_seconds: float = 5, pool_views: PoolViews | None = None) -> Iterator[Server]:
    """Serve what an observer knows, on a free port."""
    respond = routes_of(observer, pool_views=pool_views).respond
    server = Server(host="127.0.0.1", port=0, respond=respond, patience_seconds=patience_seconds)
    with running(server):
        yield server


@contextmanager
def running(server: Server) -> Iterator[None]:
    """Have a server run for a while."""
    server.start()
    try:
        yield
    finally:
        server.stop()


@contextmanager
def read_in_a_loop(pool_views: PoolViews) -> Iterator[asyncio.AbstractEventLoop]:
    """Run the task that reads views, in a loop on a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    task = asyncio.run_coroutine_threadsafe(pool_views.run(), loop)
    wait_until(lambda: pool_views._loop is not None, within_seconds=10, what="the task that reads")
    try:
        yield loop
    finally:
        died = task.done()
        task.cancel()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    assert not died, "the task that reads has died"
