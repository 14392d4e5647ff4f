"""SIGTERM and SIGINT: the first requests an orderly stop, the second forces one. SIGHUP requests a reload."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from pool_daemon.errors import ExitCode
from pool_daemon.signals_blocked import STOP_SIGNALS, let_through
from pool_daemon.telemetry.logs import flush_logs

log = structlog.get_logger("pool_daemon")


@contextmanager
def stop_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` at the first signal, even one held back; exit at once at the second; restore the handlers at the end.

    The immediate exit skips every clean-up on purpose: a second signal means that the first one did not work.
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
    """Call `reload` at every SIGHUP, even one held back; restore the handler at the end."""
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGHUP)
    loop.add_signal_handler(signal.SIGHUP, reload)
    let_through(signal.SIGHUP)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, before)
