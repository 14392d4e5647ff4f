"""A process that holds a lease or stands by for it, and tells without end whether it may act.

`python -m tests.lease_holder URI DATABASE IDENTITY SECONDS`, from the project's folder. A line a look: the instant just
before it, on the clock that all processes of the machine share, and what closes the gate.
"""

import asyncio
import sys

import structlog

from pool_daemon.clock import SystemClock
from pool_daemon.guards.leadership import Leadership
from pool_daemon.store.client import connect
from pool_daemon.store.lease import LeaseStore
from pool_daemon.telemetry import logs

LOOK_SECONDS = 0.002


async def tell(leadership: Leadership, clock: SystemClock) -> None:
    while True:
        before = clock.monotonic()
        sys.stdout.write(f"{before} {leadership.closed_by()}\n")
        sys.stdout.flush()
        await asyncio.sleep(LOOK_SECONDS)


async def main(uri: str, database: str, identity: str, seconds: str) -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    clock = SystemClock()
    store = LeaseStore(database=connect(uri=uri, name=database), identity=identity, seconds=float(seconds))
    leadership = Leadership(store=store, clock=clock, on_acquired=lambda: None, observer=logs)
    await asyncio.gather(leadership.run(), tell(leadership, clock))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
