"""A daemon whose event loop something blocks: at each SIGUSR1, for as many seconds as the argument says.

At each SIGUSR2 it tells how many tasks there are in its loop.
"""

import asyncio
import signal
import sys
import time

import structlog

from pool_daemon.daemon import Daemon
from pool_daemon.guards.gate import StopGate
from pool_daemon.process import process_identity, stop_signals
from pool_daemon.settings import load_settings
from pool_daemon.telemetry.logs import configure_logs

log = structlog.get_logger("pool_daemon.stalling")


async def serve(stall_seconds: float) -> None:
    """Run the daemon until a signal stops it."""
    settings = load_settings(None)
    configure_logs(settings.log.format, settings.log.level)
    stop = StopGate()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, time.sleep, stall_seconds)
    loop.add_signal_handler(signal.SIGUSR2, lambda: log.info("tasks", count=len(asyncio.all_tasks())))
    with stop_signals(stop.close):
        assert settings.database.uri is not None
        uri = settings.database.uri.get_secret_value()
        await Daemon(settings=settings, uri=uri, identity=process_identity(), stop=stop).run()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
