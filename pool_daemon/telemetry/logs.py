"""Logs: one format for the daemon's own events and for those of its libraries.

The daemon's events are rows of the table in `events.py`: `tell(POOL_DECOMMISSIONED, pool=7, workloads=3)`. They go
straight to the writer. Those of the libraries pass through the standard library's handlers, which cost four times as
much a line.
"""

import json
import logging
import math
import os
import sys
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.processors import ExceptionRenderer, TimeStamper
from structlog.stdlib import BoundLogger, ProcessorFormatter
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor, WrappedLogger

from pool_daemon.events import LOG_LINES_DROPPED, Event
from pool_daemon.plain_text import escaped, escaped_lines, mask_credentials, shown_id
from pool_daemon.telemetry.log_writer import LogWriter

Form = Literal["auto", "json", "console"]
Level = Literal["debug", "info", "warning", "error"]

OURS = "pool_daemon"
HANDLER = "pool-daemon"
LEADING = ("timestamp", "level", "logger", "event")

IDS: Final = frozenset({"pool", "workload", "order", "document"})
"""Fields of an event that hold an id, which may be of any BSON type."""

PRIORITIES: Final = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
"""The priorities of syslog, as journald reads them between angle brackets."""

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "exception": logging.ERROR,
    "critical": logging.CRITICAL,
}
"""The level of each of a logger's methods."""

_TIMESTAMP: Final = TimeStamper(fmt="iso", utc=True)

_encode: Final = json.JSONEncoder().encode  # all values are plain by then


class JournalFormatter(ProcessorFormatter):
    """Marks every line with its priority, so that `journalctl -p warning` finds it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's lines, each with its priority."""
        return _marked(super().format(record), record.levelno)


class WriterHandler(logging.Handler):
    """Passes the libraries' log records to the writer."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self.name = HANDLER
        self.writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Format a record and queue it."""
        try:
            self.writer.write(self.format(record))
        except Exception as error:  # noqa: BLE001 - a library's faulty record must not stop its caller
            self.writer.write(f"a log record of {record.name} cannot be formatted: {error!r}")


class Lines:
    """The last processor of the daemon's own loggers: passes finished lines to the writer."""

    def __init__(self, name: str, *, writer: LogWriter, journal: bool) -> None:
        self.name = name
        self._namesake = logging.getLogger(name)
        self._writer = writer
        self._journal = journal
        self.debug, self.info, self.warning, self.error, self.exception, self.critical = (
            partial(self._write, level) for level in LEVELS.values()
        )

    def hears(self, level: int) -> bool:
        """Return whether a level is enabled, as the standard library's logger of the same name decides."""
        return self._namesake.isEnabledFor(level)

    def _write(self, level: int, text: str) -> None:
        self._writer.write(_marked(text, level) if self._journal else text)


def configure_logs(form: Form, level: Level, stream: TextIO | None = None) -> None:
    """Send every log record of the process to `stream`, by default standard error; a second call starts over.

    `auto` means console on a terminal and JSON lines elsewhere. Python's warnings are logged too.
    """
    stream = stream or sys.stderr
    console = is_console(form, stream)
    first: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
    ]
    last = _console(stream) if console else _json()
    journal = _goes_to_journal(stream)
    writer = LogWriter(stream, on_resumed=_tell_dropped)
    handler = WriterHandler(writer)
    formatter = JournalFormatter if journal else ProcessorFormatter
    handler.setFormatter(
        formatter(foreign_pre_chain=first, processors=[ProcessorFormatter.remove_processors_meta, *last])
    )
    _install(handler)
    structlog.configure(
        processors=[_hear, *first, *last],
        logger_factory=cache(partial(Lines, writer=writer, journal=journal)),
        wrapper_class=BoundLogger,
    )
    logging.captureWarnings(capture=True)
    set_level(level)


def tell(event: Event, **fields: Any) -> None:
    """Log an event of the table with some fields."""
    teller(event)(**fields)


def teller(event: Event) -> Callable[..., None]:
    """Return what logs one event again and again: a storm makes thousands of lines a second."""
    logger = structlog.get_logger(event.logger).bind()
    return partial(getattr(logger, event.level), event.name)


def set_level(level: Level) -> None:
    """Change the level of the daemon's own events; those of its libraries are never logged below a warning."""
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger(OURS).setLevel(number)
    logging.getLogger().setLevel(max(number, logging.WARNING))


def is_console(form: Form, stream: TextIO | None = None) -> bool:
    """Return whether logs in that format are for a person at a terminal; `auto` means on a terminal only."""
    return form == "console" or (form == "auto" and (stream or sys.stderr).isatty())


def flush_logs() -> None:
    """Wait until every line is written, FLUSH_SECONDS at most."""
    for handler in _handlers():
        handler.writer.flush()


def dropped_lines() -> int:
    """Return how many lines were dropped since the logs were configured."""
    return sum(handler.writer.dropped for handler in _handlers())


def _handlers() -> list[WriterHandler]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, WriterHandler)]


def _install(handler: WriterHandler) -> None:
    root = logging.getLogger()
    for stale in _handlers():
        stale.writer.flush()
        root.removeHandler(stale)
    root.addHandler(handler)


def _tell_dropped(lines: int) -> None:
    tell(LOG_LINES_DROPPED, lines=lines, reason="the log's reader was stuck or gone, or its disk was full")


def _json() -> list[Processor]:
    # Local variables stay out of tracebacks: any of them may hold the address of the database.
    traceback = ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
    return [traceback, _make_plain, _TIMESTAMP, _put_first_what_is_read_first, _as_json]


def _console(stream: TextIO) -> list[Processor]:
    colors = stream.isatty() and "NO_COLOR" not in os.environ
    return [
        ExceptionRenderer(),
        _make_plain,
        _make_printable,
        TimeStamper(fmt="%Y-%m-%d %H:%M:%SZ", utc=True),
        ConsoleRenderer(colors=colors, exception_formatter=plain_traceback, sort_keys=False),
    ]


def _put_first_what_is_read_first(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    first = {key: event.pop(key) for key in LEADING if key in event}
    return {**first, **event}


def _hear(logger: Lines, method: str, event: EventDict) -> EventDict:
    if logger.hears(LEVELS[method]):
        return event
    raise structlog.DropEvent


def _as_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return _encode(event)


def _marked(text: str, level: int) -> str:
    mark = f"<{PRIORITIES.get(level, 6)}>"
    return mark + text.replace("\n", f"\n{mark}")


def _make_plain(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {key: _plain(shown_id(value) if key in IDS else value) for key, value in event.items()}


def _make_printable(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape what would move a terminal's cursor: a console prints strings as they are. JSON escapes by itself."""
    return {key: _printable(key, value) for key, value in event.items()}


def _printable(key: str, value: Any) -> Any:
    if isinstance(value, str):
        return escaped_lines(value) if key == "exception" else escaped(value)
    return value if isinstance(value, int | float | None) else escaped(str(value))


def _plain(value: Any) -> Any:
    """Reduce a value to JSON types, with no credentials in any of its strings.

    The commonest types are tested first, and exactly, since a storm makes thousands of lines a second.
    """
    kind = type(value)
    if kind is int:
        return value
    if kind is str:
        return mask_credentials(value)
    if value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return mask_credentials(str(value))


def _goes_to_journal(stream: TextIO) -> bool:
    """Return whether journald reads the stream; a child may inherit JOURNAL_STREAM and yet write elsewhere."""
    try:
        status = os.fstat(stream.fileno())
    except OSError:  # a stream in memory
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
