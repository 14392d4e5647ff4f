"""The address of a MongoDB: its options are checked one by one, and those that the daemon sets itself are removed."""

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from pymongo import uri_parser
from pymongo.errors import PyMongoError

from pool_daemon.errors import ConfigurationError
from pool_daemon.store.error_mapping import one_line

WHERE_AND_WHO: Final = (
    "authMechanism",
    "authMechanismProperties",
    "authSource",
    "compressors",
    "directConnection",
    "loadBalanced",
    "replicaSet",
    "srvAllowedHostsSuffix",
    "srvMaxHosts",
    "srvServiceName",
    "ssl",
    "tls",
    "tlsAllowInvalidCertificates",
    "tlsAllowInvalidHostnames",
    "tlsCAFile",
    "tlsCRLFile",
    "tlsCertificateKeyFile",
    "tlsCertificateKeyFilePassword",
    "tlsDisableOCSPEndpointCheck",
    "tlsInsecure",
    "zlibCompressionLevel",
)
"""Options that an address may set: where the servers are, how the daemon authenticates, how the connection is
protected."""

OURS: Final = (
    "appName",
    "connectTimeoutMS",
    "enableOverloadRetargeting",
    "fsync",
    "heartbeatFrequencyMS",
    "journal",
    "localThresholdMS",
    "maxAdaptiveRetries",
    "maxConnecting",
    "maxIdleTimeMS",
    "maxPoolSize",
    "maxStalenessSeconds",
    "minPoolSize",
    "readConcernLevel",
    "readPreference",
    "readPreferenceTags",
    "retryReads",
    "retryWrites",
    "serverMonitoringMode",
    "serverSelectionTimeoutMS",
    "socketTimeoutMS",
    "timeoutMS",
    "uuidRepresentation",
    "w",
    "waitQueueTimeoutMS",
    "wtimeoutMS",
)
"""Options that the daemon sets itself, so that no address weakens them: a read from a secondary is stale, and a write
without a majority can be rolled back by an election. In an address they are checked, and have no effect."""

SAME_AS_OURS: Final[Mapping[str, str]] = {
    "journal": "true",
    "readconcernlevel": "majority",
    "readpreference": "primary",
    "retryreads": "true",
    "retrywrites": "true",
    "w": "majority",
}

_NAMES: Final = {name.lower(): name for name in (*WHERE_AND_WHO, *OURS)}
_SPLIT = re.compile(r"(?P<servers>[^?]*)(?:\?(?P<options>.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Address:
    """An address as passed to the driver, and the names of the options that were removed and have no effect."""

    uri: str
    ignored: tuple[str, ...]


def read_address(uri: str) -> Address:
    """Check the options of an address.

    The driver itself would only warn of an option that it does not know or cannot read, and leave it out: with
    `tls=tru` it would send the password in plaintext. Raises ConfigurationError, naming the option.
    """
    parts = _SPLIT.fullmatch(uri)
    if parts is None or not parts["options"]:
        return Address(uri=uri, ignored=())
    kept, ignored = [], []
    for name, option in _options(parts["options"]):
        key = name.lower()
        if name in OURS:
            if option.partition("=")[2].lower() != SAME_AS_OURS.get(key):
                ignored.append(name)
        else:
            kept.append(option)
    return Address(uri=f"{parts['servers']}?{'&'.join(kept)}" if kept else parts["servers"], ignored=tuple(ignored))


def _options(text: str) -> Iterator[tuple[str, str]]:
    """Yield each option under its canonical name; each is parsed separately, so that an error can name it."""
    seen = set()
    for option in re.split("[&;]", text):
        written, equals, _ = option.partition("=")
        name = _NAMES.get(written.lower())
        if (name is None or not equals) and "@" in text:  # it may be a part of the password
            raise ConfigurationError("database.uri: in user and password write ? as %3F, in options @ as %40")
        if name is None or not equals:
            raise _refused(written, _unknown(written))
        if name in seen and name != "readPreferenceTags":
            raise _refused(name, "is given twice")
        seen.add(name)
        try:
            with warnings.catch_warnings(action="error", category=UserWarning):
                uri_parser.split_options(option, validate=True, warn=False)
        except (PyMongoError, ValueError, TypeError, OSError, UserWarning) as error:
            raise _refused(name, _why(name, error)) from None
        yield name, option


def _unknown(written: str) -> str:
    close = get_close_matches(written.lower(), _NAMES, n=1)
    return f"is no option; did you mean {_NAMES[close[0]]}?" if close else "is no option; remove it"


def _why(name: str, error: BaseException) -> str:
    if name in {"authMechanismProperties", "tlsCertificateKeyFilePassword"}:
        return "cannot be read"  # the driver's message may quote it, and it is a secret
    if isinstance(error, OSError):
        return f"names a file that cannot be read: {error.strerror}"
    return one_line(error)


def _refused(name: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"database.uri: option {name[:50]!r}: {why}")
