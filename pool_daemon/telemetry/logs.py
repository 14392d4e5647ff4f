"""Logs: one form for the daemon's own events and for those of the libraries beneath it.

A module of the daemon calls `structlog.get_logger("pool_daemon.NOUN")` and names an event, with key/values:
`log.info("pool_expired", pool_id=7, workloads=3)`.
"""

import logging
import math
import os
import sys
from collections.abc import Mapping
from typing import Any, Literal, TextIO

import structlog
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.processors import ExceptionRenderer, JSONRenderer, TimeStamper
from structlog.stdlib import BoundLogger, LoggerFactory, ProcessorFormatter
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor, WrappedLogger

from pool_daemon.telemetry.credentials import mask_credentials

Form = Literal["auto", "json", "console"]
Level = Literal["debug", "info", "warning", "error"]

OURS = "pool_daemon"
HANDLER = "pool-daemon"
LEADING = ("timestamp", "level", "logger", "event")

# The priorities of syslog, as journald reads them between angle brackets.
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class JournalFormatter(ProcessorFormatter):
    """Marks every line with its priority, so that `journalctl -p warning` finds it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's lines, each with its mark."""
        mark = f"<{PRIORITIES.get(record.levelno, 6)}>"
        return mark + super().format(record).replace("\n", f"\n{mark}")


def configure_logs(form: Form, level: Level, stream: TextIO | None = None) -> None:
    """Send every log record of the process to `stream`, by default standard error; called again, start over.

    `auto` means console on a terminal and JSON lines elsewhere. Python's warnings are logged too.
    """
    stream = stream or sys.stderr
    first: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *first, ProcessorFormatter.wrap_for_formatter],
        logger_factory=LoggerFactory(),
        wrapper_class=BoundLogger,
    )
    console = form == "console" or (form == "auto" and stream.isatty())
    formatter = JournalFormatter if _goes_to_journal(stream) else ProcessorFormatter
    last = _console(stream) if console else _json()
    handler = logging.StreamHandler(stream)
    handler.name = HANDLER
    handler.setFormatter(formatter(foreign_pre_chain=first, processors=last))
    _install(handler)
    logging.captureWarnings(capture=True)
    set_level(level)


def set_level(level: Level) -> None:
    """Change what is said from now on; the libraries beneath never say anything below a warning."""
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger(OURS).setLevel(number)
    logging.getLogger().setLevel(max(number, logging.WARNING))


def _install(handler: logging.Handler) -> None:
    root = logging.getLogger()
    for stale in [old for old in root.handlers if old.name == HANDLER]:
        root.removeHandler(stale)
    root.addHandler(handler)


def _json() -> list[Processor]:
    # Local variables stay out of tracebacks: any of them may hold the address of the database.
    traceback = ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
    return [
        ProcessorFormatter.remove_processors_meta,
        traceback,
        _make_plain,
        _put_first_what_is_read_first,
        JSONRenderer(),
    ]


def _console(stream: TextIO) -> list[Processor]:
    colors = stream.isatty() and "NO_COLOR" not in os.environ
    return [
        ProcessorFormatter.remove_processors_meta,
        ExceptionRenderer(),
        _make_plain,
        ConsoleRenderer(colors=colors, exception_formatter=plain_traceback),
    ]


def _put_first_what_is_read_first(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    first = {key: event.pop(key) for key in LEADING if key in event}
    return {**first, **event}


def _make_plain(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {key: _plain(value) for key, value in event.items()}


def _plain(value: Any) -> Any:
    """Reduce a value to what JSON can hold, with no credentials in any of its strings."""
    if value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return mask_credentials(str(value))


def _goes_to_journal(stream: TextIO) -> bool:
    """Tell whether journald reads the stream; a child may inherit JOURNAL_STREAM and yet write elsewhere."""
    try:
        status = os.fstat(stream.fileno())
    except OSError:  # a stream in memory
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
