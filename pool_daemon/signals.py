"""SIGTERM and SIGINT: the first asks for an orderly stop, the second forces one. SIGHUP asks for a reload."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from pool_daemon.early_stop import STOP_SIGNALS, let_through
from pool_daemon.errors import ExitCode
from pool_daemon.telemetry.logs import flush_logs

log = structlog.get_logger("pool_daemon")


@contextmanager
def stop_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` at the first signal, be it one held back; leave at once at the second; restore everything at the end.

    Leaving at once skips every clean-up on purpose: whoever sends a second signal has seen the first one fail.
    """
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    asked = False

    def receive() -> None:
        nonlocal asked
        if asked:
            log.critical("stop_forced", exit_code=int(ExitCode.FORCED), reason="a second signal cut the stop short")
            flush_logs()
            os._exit(ExitCode.FORCED)
        asked = True
        stop()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, receive)
    let_through(*STOP_SIGNALS)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


@contextmanager
def reload_signal(reload: Callable[[], None]) -> Iterator[None]:
    """Call `reload` at every SIGHUP, be it one held back; restore what was there before at the end."""
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGHUP)
    loop.add_signal_handler(signal.SIGHUP, reload)
    let_through(signal.SIGHUP)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, before)
