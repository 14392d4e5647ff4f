"""Several mongos, one of which goes away; stand-ins, see `router`.

A client keeps to one router while that one is up. If it goes away while a command is on its way there, as nearly
always, that command fails, and the stream is opened anew through another router. If it goes away between two commands
of the stream, and the driver notices by another one, the next command for more goes to another router, which does not
know the cursor. No cursor can follow its router, so that is right: it costs the same error and the same new stream.
"""

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
STRAYS = 1
"""Commands for more that may reach another router when the first one goes away; before and after that, none may."""


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
            assert [router.strays for router in routers] == [0, 0, 0]
            await first.stop()
            await asyncio.to_thread(wait_for_stream, daemon, 2)
            await asyncio.to_thread(explorer.wait_until_gone, ids_of(pools), within_seconds=GONE_SECONDS)
            opened = len(daemon.said("stream_opened"))
            await asyncio.to_thread(daemon.stop)
    strays = sum(router.strays for router in routers)
    astray = [f"{strays} commands to a router that does not know the cursor"] * (strays > STRAYS)
    violations = ledger.violations() + astray
    figures.record(
        43,
        "one of three routers (stand-ins for mongos) goes away",
        trials=count,
        violations=violations,
        figure=f"streams opened: {opened}; commands to the wrong router: {strays}",
    )
    assert violations == []
