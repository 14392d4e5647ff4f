"""The daemon as a process: its logs, its MongoDB, its identity, its memory, its signals."""

import asyncio
import ctypes
import gc
import os
import resource
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, NamedTuple

from pool_daemon import __version__, events
from pool_daemon.daemon import Daemon
from pool_daemon.embedded import EmbeddedMongod, default_folder
from pool_daemon.errors import ConfigurationError, EmbeddedError, ExitCode, PartDiedError, PoolDaemonError
from pool_daemon.guards.gate import StopGate
from pool_daemon.settings import Settings
from pool_daemon.signals_blocked import STOP_SIGNALS, let_through
from pool_daemon.store.address import read_address
from pool_daemon.telemetry.logs import Form, configure_logs, flush_logs, is_console, tell

LEAST_FILES: Final = 64
"""Open files that a running daemon needs: connections to MongoDB, those of HTTP clients, and modules being imported."""


def serve(load: Callable[[], Settings], *, once: bool = False, dry_run: bool = False) -> ExitCode:
    """Run the daemon until a signal stops it, or for a single pass if `once`; write nothing in a `dry_run`.

    `load` reads the settings, now and after each SIGHUP. An error that ends the daemon is the last line of its log, and
    its exit code is returned. Only at a terminal a ConfigurationError from before the start is raised.
    """
    keep_one_heap()
    early_form = _early_form(os.environ)
    configure_logs(early_form, "info")
    try:
        _allow_files()
        settings = load()
    except ConfigurationError as error:
        if is_console(early_form):
            raise
        return _ended_by(error)
    except Exception as error:  # noqa: BLE001 - a bug, or a machine out of memory: one line all the same
        told = " ".join(f"{type(error).__name__}: {error}".split())
        return _ended_by(PartDiedError(f"the settings could not be read: {told}"))
    configure_logs(settings.log.format, settings.log.level)
    try:
        exit_code = asyncio.run(_serve(settings, load, once=once, dry_run=dry_run))
    except PoolDaemonError as error:
        return _ended_by(error)
    except Exception:  # noqa: BLE001 - logged with its traceback
        tell(events.CRASHED, exit_code=int(ExitCode.INTERNAL), exc_info=True)
        return ExitCode.INTERNAL
    else:
        tell(events.STOPPED, exit_code=int(exit_code))
        return exit_code
    finally:
        flush_logs()


def _allow_files() -> None:
    """Raise the limit of open files to LEAST_FILES; ConfigurationError if that is not allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < LEAST_FILES:
        raise ConfigurationError(
            f"this process may open {hard} files, and needs at least {LEAST_FILES}: raise LimitNOFILE= in the unit, or "
            "the limit of `ulimit -n`"
        )
    if 0 <= soft < LEAST_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (LEAST_FILES, hard))


def _ended_by(error: PoolDaemonError) -> ExitCode:
    """Log why the daemon ends, like all its lines; return the exit code."""
    for line in str(error).splitlines():
        tell(events.FATAL, reason=line, exit_code=int(error.exit_code))
    flush_logs()
    return error.exit_code


def _early_form(environ: Mapping[str, str]) -> Form:
    """Return the log format until the settings are read: the environment's, if it sets one."""
    forms: dict[str, Form] = {"json": "json", "console": "console"}
    return forms.get(environ.get("POOL_DAEMON_LOG__FORMAT", ""), "auto")


async def _serve(settings: Settings, load: Callable[[], Settings], *, once: bool, dry_run: bool) -> ExitCode:
    stop = StopGate()
    with stop_signals(stop.close):
        tell(events.STARTED, version=__version__, database=settings.database.name, dry_run=dry_run)
        async with _mongodb(settings) as mongodb:
            daemon = Daemon(
                settings=settings,
                uri=mongodb.uri,
                identity=process_identity(),
                stop=stop,
                leased=not once,
                dry_run=dry_run,
            )
            calm_the_collector()
            if once:
                return await _serve_once(daemon, dry_run=dry_run)
            with reload_signal(lambda: daemon.reload(load)):
                await daemon.run(mongodb.ended)
            return ExitCode.OK


async def _serve_once(daemon: Daemon, *, dry_run: bool) -> ExitCode:
    """Make one pass, and log what it left undone; FAILED if it left anything."""
    report = await daemon.run_once()
    counted = "would_decommission" if dry_run else "decommissioned"
    tell(events.PASS_COMPLETED, **{"settled": report.settled, counted: report.decommissioned})
    left = daemon.left_undone(report)
    if left:
        tell(events.LEFT_UNDONE, **left, remedy="see `pool-daemon brake status`, `quarantine list`, and the log above")
    return ExitCode.FAILED if left else ExitCode.OK


def process_identity() -> str:
    """Return a unique name for this process: the host, the process id, and a random suffix."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"


class _MongoDB(NamedTuple):
    """The address of a MongoDB and, for an embedded mongod, a function that awaits its end."""

    uri: str
    ended: Callable[[], Coroutine[Any, Any, None]] | None = None


@asynccontextmanager
async def _mongodb(settings: Settings) -> AsyncIterator[_MongoDB]:
    """Yield the configured MongoDB, else an embedded mongod."""
    if settings.database.uri is not None:
        uri = settings.database.uri.get_secret_value()
        if ignored := read_address(uri).ignored:
            tell(events.ADDRESS_OPTIONS_IGNORED, options=ignored, reason="the daemon sets them itself")
        yield _MongoDB(uri)
        return
    folder = settings.embedded.folder or default_folder(os.environ)
    mongod = EmbeddedMongod(folder=folder, port=settings.embedded.port, mongod=settings.embedded.mongod)
    try:
        await mongod.start()
    except EmbeddedError as error:
        raise ConfigurationError(
            f"database.uri: not set, and the daemon's own mongod cannot serve instead: {error}"
        ) from error
    try:
        tell(events.EMBEDDED_MONGOD, folder=str(folder), port=mongod.port, reason="database.uri is not set")
        yield _MongoDB(mongod.uri, mongod.wait)
    finally:
        await mongod.stop()


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
            tell(events.STOP_FORCED, exit_code=int(ExitCode.FORCED), reason="a second signal cut the stop short")
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


M_ARENA_MAX: Final = -8
"""The parameter's number in the C library's `malloc.h`."""


def keep_one_heap() -> None:
    """Make all threads allocate from one heap; call it before there is a second thread.

    The GNU C library gives threads heaps of their own so that they do not wait for each other, which the interpreter's
    lock makes them do anyway. Memory that one batch releases then lies unused in one thread's heap while the next batch
    is read into another's: ten times as many pools in a storm took 9 MB more, and with one heap 1.6. Other C libraries
    have one heap anyway.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)


def calm_the_collector() -> None:
    """Exempt all existing objects from garbage collection, and collect a tenth as often.

    In a storm it took a fifth of the daemon's processor time, searching for cycles among documents that have none.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
