"""Every error the daemon raises on purpose, and what an operator does about it."""

from enum import IntEnum, StrEnum


class ExitCode(IntEnum):
    """The process's exit codes; those from 64 up are the meanings of sysexits.h."""

    OK = 0
    FAILED = 1  # something expected did not hold: a demo's or a check's verdict
    USAGE = 2  # the command line could not be understood
    UNAVAILABLE = 69  # MongoDB could not be reached in time by a command that does not wait for it
    INTERNAL = 70  # a part of the daemon died: a bug, or a machine out of resources
    NOT_ALLOWED = 77  # MongoDB refused the credentials or the role
    CONFIGURATION = 78  # the settings are wrong: restarting cannot help
    FORCED = 130  # a second signal cut the orderly stop short


class Scope(StrEnum):
    """Whose fault an error is, as far as its kind tells.

    A pool's own, that of the database which all pools share, or that of the operator who set things up. Where the kind
    does not tell, evidence has to: what else failed in the same way, and what succeeded.
    """

    POOL = "pool"
    DATABASE = "database"
    OPERATOR = "operator"
    UNKNOWN = "unknown"


class PoolDaemonError(Exception):
    """Anything the daemon raises on purpose; its text is one line meant for an operator."""

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
    """A part of the daemon ended although nobody stopped it. The log's last lines say why; restart it."""

    exit_code = ExitCode.INTERNAL


class CapacityError(PoolDaemonError, ValueError):
    """A number, a unit or a reservation breaks the rules of capacity. Correct the document named."""

    scope = Scope.POOL


class NotFiniteError(CapacityError):
    """An amount or a rate is NaN or infinite. Whoever wrote it must write a finite number."""


class UnitsError(CapacityError):
    """A workload's type or size has no known units; it is left running. Correct its document."""


class ReservationError(CapacityError):
    """A reservation is incomplete or contradicts the text that was signed. The customer must send it again."""


class VerificationError(CapacityError):
    """A signature does not hold, or it or its key is malformed. The signer must sign again."""


class StoreError(PoolDaemonError):
    """The database did not do what was asked."""


class NotFoundError(StoreError):
    """No document has that id. Check the id; nothing is wrong with the database."""


class PoolNotFoundError(NotFoundError):
    """The specified pool could not be found. Check the pool's id."""


class ReservationNotFoundError(NotFoundError):
    """The specified reservation was not found. Check the reservation's id."""


class UnreadableDocumentError(StoreError):
    """A document breaks the data contract. It is skipped and never rewritten; correct it by hand."""

    scope = Scope.POOL


class StoreUnavailableError(StoreError):
    """MongoDB cannot be reached or does not answer in time; the daemon retries. See to the server or the network."""

    exit_code = ExitCode.UNAVAILABLE
    scope = Scope.DATABASE


class StoreConflictError(StoreError):
    """Another writer was faster, or has not committed yet; the daemon retries. Nothing to do unless it persists."""

    scope = Scope.POOL


class StoreOverloadError(StoreError):
    """The server cannot hold a transaction of that size, or not finish it in time; the daemon tries a smaller one."""


class CommonCauseError(StoreError):
    """All that was tried failed alike, so no pool is to blame. The message is the server's own reason; see to that."""

    scope = Scope.DATABASE


class StoreRefusedError(StoreError):
    """MongoDB refuses the credentials or lacks a privilege. Grant the role that the daemon needs."""

    exit_code = ExitCode.NOT_ALLOWED
    scope = Scope.OPERATOR


class StreamTokenError(StoreError):
    """The place to resume the change stream is gone; the daemon reopens it now and rescans everything."""


class DemoError(PoolDaemonError):
    """The demo could not be played to its end. The message holds what the daemon said last; --keep keeps its log."""


class NoAnswerError(PoolDaemonError):
    """No daemon answers at the configured http address. See that it runs, and that http.host and http.port are its."""


class BenchError(PoolDaemonError):
    """A figure could not be measured, or the database named is not empty. The message says what to change."""
