"""Several mongos, one of which goes away; stand-ins, see `router`."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from addresses import through
from arithmetic_model import Rates
from deadline import until
from explorer import CONTAINER, Explorer
from faults.daemons import STORM, daemon_on
from faults.figures import Figures
from faults.pools import ids_of
from faults.streams import wait_for_stream
from ledger import Ledger
from router import Router

from pool_daemon.embedded import EmbeddedMongod

GONE_SECONDS = 30
FOLLOWED = 3
"""So many commands for more, and a stream is open and asked again and again."""


@pytest.mark.parametrize("count", [10, pytest.param(300, marks=pytest.mark.faults)])
async def test_43_a_router_that_goes_away_tears_the_stream_once(
    count: int, mongod: EmbeddedMongod, explorer: Explorer, ledger: Ledger, figures: Figures
) -> None:
    cursors: dict[int, Router] = {}
    async with AsyncExitStack() as stack:
        routers = [await stack.enter_async_context(Router(port=mongod.port, cursors=cursors)) for _ in range(3)]
        uri = through(mongod.uri, *(router.port for router in routers))
        with daemon_on(uri, explorer, **STORM) as daemon:
            await asyncio.to_thread(ledger.settle)
            pools = [explorer.draft(Rates(cu=5.5 + number % 5), [CONTAINER]) for number in range(count)]
            await asyncio.to_thread(explorer.create, pools)
            await until(
                lambda: any(router.commands.count("getMore") >= FOLLOWED for router in routers),
                within_seconds=GONE_SECONDS,
                what="a stream that is followed",
            )
            (first,) = [router for router in routers if "getMore" in router.commands]
            await first.stop()
            await asyncio.to_thread(wait_for_stream, daemon, 2)
            await asyncio.to_thread(explorer.wait_until_gone, ids_of(pools), within_seconds=GONE_SECONDS)
            opened = len(daemon.said("stream_opened"))
            await asyncio.to_thread(daemon.stop)
    strays = sum(router.strays for router in routers)
    violations = ledger.violations() + [f"{strays} commands to a router that does not know the cursor"] * bool(strays)
    figures.record(
        43,
        "one of three routers (stand-ins for mongos) goes away",
        trials=count,
        violations=violations,
        figure=f"streams opened: {opened}; commands to the wrong router: {strays}",
    )
    assert violations == []
