"""Every error that the daemon raises on purpose, and the operator's remedy."""

from enum import IntEnum, StrEnum


class ExitCode(IntEnum):
    """The process's exit codes; those from 64 up have the meanings of sysexits.h."""

    OK = 0
    FAILED = 1  # an expectation did not hold: the verdict of a demo or a check
    USAGE = 2  # the command line is invalid
    UNAVAILABLE = 69  # MongoDB could not be reached in time, for a command that does not wait for it
    INTERNAL = 70  # a part of the daemon died: a bug, or a machine out of resources
    NOT_ALLOWED = 77  # MongoDB refused the credentials or the role
    CONFIGURATION = 78  # the settings are wrong: a restart cannot help
    FORCED = 130  # a second signal cut the orderly stop short


class Scope(StrEnum):
    """The place of an error's cause, as far as its type shows.

    It lies in the pool itself, in the database that all pools share, or in the operator's set-up. Where the type does
    not show it, evidence decides: what else failed in the same way, and what succeeded.
    """

    POOL = "pool"
    DATABASE = "database"
    OPERATOR = "operator"
    UNKNOWN = "unknown"


class PoolDaemonError(Exception):
    """An error that the daemon raises on purpose; its text is one line for an operator."""

    exit_code = ExitCode.FAILED
    scope = Scope.UNKNOWN


class ConfigurationError(PoolDaemonError):
    """The settings cannot be used. Correct the field that the message names, then start again."""

    exit_code = ExitCode.CONFIGURATION
    scope = Scope.OPERATOR


class EmbeddedError(PoolDaemonError):
    """The daemon's own mongod cannot be found, started or stopped. The message names the remedy."""

    exit_code = ExitCode.CONFIGURATION


class PartDiedError(PoolDaemonError):
    """A part of the daemon ended without a stop. The log's last lines say why; restart the daemon."""

    exit_code = ExitCode.INTERNAL


class CapacityError(PoolDaemonError, ValueError):
    """A number, a unit or a reservation breaks the rules of capacity. Correct the document named."""

    scope = Scope.POOL


class NotFiniteError(CapacityError):
    """An amount or a rate is NaN or infinite. Its writer must write a finite number."""


class UnitsError(CapacityError):
    """A workload's type or size has no known units; it is left running. Correct its document."""


class ReservationError(CapacityError):
    """A reservation is incomplete or contradicts the text that was signed. The customer must send it again."""


class VerificationError(CapacityError):
    """A signature does not hold, or it or its key is malformed. The signer must sign again."""


class StoreError(PoolDaemonError):
    """An operation of the database failed."""


class NotFoundError(StoreError):
    """No document has that id. Check the id; the database works."""


class PoolNotFoundError(NotFoundError):
    """The specified pool could not be found. Check the pool's id."""


class ReservationNotFoundError(NotFoundError):
    """The specified reservation was not found. Check the reservation's id."""


class UnreadableDocumentError(StoreError):
    """A document breaks the data contract. It is skipped and never rewritten; correct it by hand."""

    scope = Scope.POOL


class StoreUnavailableError(StoreError):
    """MongoDB cannot be reached or does not answer in time; the daemon retries. Check the server and the network."""

    exit_code = ExitCode.UNAVAILABLE
    scope = Scope.DATABASE


class StoreConflictError(StoreError):
    """Another writer was faster, or has not committed yet; the daemon retries. Nothing to do unless it persists.

    It concerns single pools. A pass catches it before it asks for the scope, so no pool goes into quarantine for it.
    """

    scope = Scope.POOL


class StoreOverloadError(StoreError):
    """The server cannot hold or finish in time a transaction of that size; the daemon tries a smaller one."""


class CommonCauseError(StoreError):
    """All attempts failed alike, so no pool is to blame. The message is the server's own reason; repair that."""

    scope = Scope.DATABASE


class StoreRefusedError(StoreError):
    """MongoDB refuses the credentials or lacks a privilege. Grant the role that the daemon needs."""

    exit_code = ExitCode.NOT_ALLOWED
    scope = Scope.OPERATOR


class StreamTokenError(StoreError):
    """The place to resume the change stream is lost; the daemon reopens it now and does a full scan."""


class DemoError(PoolDaemonError):
    """The demo could not finish. The message holds the daemon's last log lines; --keep keeps its log."""


class NoAnswerError(PoolDaemonError):
    """No daemon answers at the configured http address. Check that it runs, and check http.host and http.port."""


class BenchError(PoolDaemonError):
    """A figure could not be measured, or the named database is not empty. The message says what to change."""
