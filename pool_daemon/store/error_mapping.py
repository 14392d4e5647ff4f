"""Error translation: the one place where an error of the driver becomes one of the daemon's own."""

import re
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from bson.errors import BSONError
from dns.exception import DNSException
from pymongo import errors as driver

from pool_daemon.errors import (
    ConfigurationError,
    StoreConflictError,
    StoreError,
    StoreOverloadError,
    StoreRefusedError,
    StoreUnavailableError,
    StreamTokenError,
    UnreadableDocumentError,
)

AUTHENTICATION_FAILED = 18

REFUSED = frozenset({13, AUTHENTICATION_FAILED, 8000})
"""Unauthorized, AuthenticationFailed, and a hosted service's AtlasError: only an operator can help."""

COLLECTION_LOCKED = 24
"""LockTimeout: a transaction waits for five milliseconds only for its lock on a collection. Whoever alters one, or
builds an index on it, has that lock alone for moments, and everybody queues behind a build that waits for it."""

UNAVAILABLE = frozenset(
    {
        6,
        7,
        20,
        COLLECTION_LOCKED,
        50,
        63,
        64,
        89,
        91,
        133,
        150,
        189,
        234,
        262,
        263,
        290,
        9001,
        10058,
        10107,
        11600,
        11602,
        13388,
        13435,
        13436,
    }
)
"""Codes of a server that is away, stepping down, shutting down, recovering or too slow, or that was started without its
replica set (20 and 263: no transactions). They pass without intervention."""

DUPLICATE_KEY = 11000

OVERLOAD = frozenset({257, 365, 388, 10334})
"""TransactionTooLarge, TemporarilyUnavailable and TransactionTooLargeForCache (no room in the cache), and
BSONObjectTooLarge: a smaller transaction may succeed."""

CONFLICT = frozenset({112, 225, 246, 251, 256, DUPLICATE_KEY})
"""WriteConflict; transactions aborted, superseded or without their snapshot; DuplicateKey: another writer was
faster."""

REASON_CHARACTERS: Final = 200
"""The longest reason: it has to fit a log line, a row of a table, a cell of the page."""

DRIVER_ASIDES = re.compile(r", full error: | \(configured timeouts: |, Timeout: [\d.]+s, ")
"""The beginning of the driver's description of its settings, behind the error itself."""

BUILD_OF = re.compile(r"^(Index build failed: ).* :: caused by :: ")
"""The UUIDs of build and collection in the server's message on a failed index build: longer than the cause behind
them."""

PROTOCOL_FIELDS = re.compile(r"\blsid\b|\$clusterTime|\$db\b|\bsignature: ")
"""Signs that a server's message quotes a command, session and signature included; the quotation begins with `{`."""

NOT_AUTHORIZED = re.compile(r'not authorized on (\S+) to execute command \{ (\w+): (?:"([^"]*)")?(.*)', re.DOTALL)
NO_USER = re.compile(r"command \w+ requires authentication", re.IGNORECASE)

PRIVILEGES: Final[Mapping[str, str]] = {
    "aggregate": "read",
    "create": "create",
    "createIndexes": "create indexes on",
    "delete": "delete from",
    "find": "read",
    "findAndModify": "update",
    "findandmodify": "update",
    "insert": "insert into",
    "listCollections": "list the collections of",
    "listIndexes": "list the indexes of",
    "update": "update",
}
"""The operation of each command, as a message about a missing privilege names it."""

GRANT_ROLE: Final = "run deploy/mongodb/create-user.js"

SESSIONLESS = "Sessions are not supported"
"""The driver's message for a connection that was made while its server changed its role."""

TOKEN_DEAD = frozenset({260, 280, 286, 10334})
"""InvalidResumeToken, ChangeStreamFatalError, ChangeStreamHistoryLost, BSONObjectTooLarge: retries would fail for
ever."""

NO_STREAMS = frozenset({115, 303, 40573})
"""No such command, no such feature, no replica set: an outage, because the start refuses such a server."""

STREAM_REMEDY = "run deploy/mongodb/create-user.js: the role needs changeStream and find"


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise the driver's errors as the daemon's own; `doing` names the operation in a few words."""
    try:
        yield
    except driver.PyMongoError as error:
        raise _translation(error, doing) from error
    except BSONError as error:
        raise UnreadableDocumentError(f"{doing}: {one_line(error)}") from error


@contextmanager
def translated_stream() -> Iterator[None]:
    """Raise what ends a change stream as the daemon's own errors, dead tokens apart from the rest."""
    try:
        with translated("watching for changes"):
            yield
    except StoreError as error:
        code = getattr(error.__cause__, "code", None)
        if isinstance(error, StoreRefusedError):
            raise StoreRefusedError(f"{error}; {STREAM_REMEDY}") from error
        if code in NO_STREAMS:
            raise StoreUnavailableError(str(error)) from error
        if code in TOKEN_DEAD:
            raise StreamTokenError(str(error)) from error
        raise


def is_duplicate(error: StoreError) -> bool:
    """Return whether a conflict was a duplicate: a document with the same id exists."""
    cause = error.__cause__
    return isinstance(cause, driver.OperationFailure) and DUPLICATE_KEY in {cause.code, *_write_error_codes(cause)}


def lost_race(error: BaseException) -> int | None:
    """Return the server's code if it aborted a transaction in favour of another; None if, say, a connection broke."""
    if isinstance(error, StoreError):
        error = error.__cause__ or error
    if isinstance(error, driver.OperationFailure) and error.has_error_label("TransientTransactionError"):
        return error.code
    return None


def failed_writes(error: StoreError) -> set[int]:
    """Return which of several writes have failed, counted from 0."""
    details = getattr(error.__cause__, "details", None) or {}
    return {each["index"] for each in details.get("writeErrors", ())}


def timed_out(error: BaseException) -> bool:
    """Return whether an operation exceeded its time limit, because of the server or of its own size."""
    cause = error.__cause__ if isinstance(error, StoreError) else error
    return isinstance(cause, driver.PyMongoError) and cause.timeout


def kind_of(error: BaseException) -> Hashable:
    """Return what two errors of the same cause have in common: their type and the server's codes."""
    cause = error.__cause__ if isinstance(error, StoreError) else None
    if isinstance(cause, driver.OperationFailure):
        return type(cause).__name__, frozenset({cause.code, *_write_error_codes(cause)})
    return type(cause or error).__name__


def lacks_sessions(error: BaseException) -> bool:
    """Return whether the driver will use no session on a connection until it is closed."""
    cause = error.__cause__ if isinstance(error, StoreError) else error
    return isinstance(cause, driver.ConfigurationError) and str(cause).startswith(SESSIONLESS)


def one_line(error: BaseException) -> str:
    """Return an error's reason as one line of at most REASON_CHARACTERS characters.

    Of the server's errors that is the server's own reason, without the command that it quotes; of the driver's, the
    message without the description of its settings.
    """
    lines = _reason(error).splitlines() or [""]
    line = "".join(character if character.isprintable() else " " for character in lines[0]).strip()
    return (line or type(error).__name__)[:REASON_CHARACTERS]


def _reason(error: BaseException) -> str:
    if not isinstance(error, driver.OperationFailure):
        return DRIVER_ASIDES.split(str(error), maxsplit=1)[0]
    text = _server_reason(error.details or {}) or DRIVER_ASIDES.split(str(error), maxsplit=1)[0]
    text = BUILD_OF.sub(r"\1", text)
    if match := NOT_AUTHORIZED.match(text):
        return _missing_privilege(*match.groups())
    if NO_USER.match(text):
        return "MongoDB requires authentication: name a user in database.uri"
    if error.code == AUTHENTICATION_FAILED:
        return f"{text.rstrip('.')}: is authSource right?"
    return text.partition("{")[0].rstrip(" :,") if PROTOCOL_FIELDS.search(text) else text


def _server_reason(details: Mapping[str, Any]) -> str | None:
    """Return the reason in the server's answer: of its first write error if it has several."""
    errors = (*details.get("writeErrors", ()), *details.get("writeConcernErrors", ()), details)
    return next((str(each["errmsg"]) for each in errors if each.get("errmsg")), None)


def _missing_privilege(database: str, command: str, collection: str | None, rest: str) -> str:
    verb = "watch" if "$changeStream" in rest else PRIVILEGES.get(command, f"run {command} on")
    return f"not authorized to {verb} {collection or database}: {GRANT_ROLE}"


def _translation(error: driver.PyMongoError, doing: str) -> Exception:
    text = f"{doing}: {one_line(error)}"[:REASON_CHARACTERS]
    if isinstance(error.__cause__ or error.__context__, DNSException):
        # The servers behind mongodb+srv:// could not be looked up. The driver calls that a wrong setting, which would
        # end the daemon for good, but it passes like any other outage.
        return StoreUnavailableError(text)
    if lacks_sessions(error):  # no wrong setting either: the next connection will have sessions
        return StoreUnavailableError(text)
    if isinstance(error, driver.InvalidURI | driver.ConfigurationError):
        return ConfigurationError(f"database.uri: {one_line(error)}")
    if isinstance(error, driver.OperationFailure):
        return _operation_failure(error, text)
    if isinstance(error, driver.ConnectionFailure):
        return StoreUnavailableError(text)
    return StoreError(text)


def _operation_failure(error: driver.OperationFailure, text: str) -> StoreError:
    codes = {error.code, *_write_error_codes(error)}
    if codes & REFUSED:
        return StoreRefusedError(text)
    if codes & OVERLOAD:
        return StoreOverloadError(text)
    if codes & UNAVAILABLE or error.timeout:
        return StoreUnavailableError(text)
    if codes & CONFLICT or error.has_error_label("TransientTransactionError"):
        return StoreConflictError(text)
    return StoreError(text)


def _write_error_codes(error: driver.OperationFailure) -> set[int]:
    details = error.details or {}
    return {entry.get("code", 0) for entry in details.get("writeErrors", ())}
