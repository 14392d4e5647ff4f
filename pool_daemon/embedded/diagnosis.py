"""Why a mongod did not start, or ended: from its exit code and its log to one line for an operator."""

import json
import re
import signal
from pathlib import Path

from pool_daemon.embedded.folder import in_use
from pool_daemon.errors import EmbeddedError

LIBRARY_PACKAGES = {
    "libcrypto.so.3": "libssl3",
    "libcurl.so.4": "libcurl4",
    "liblzma.so.5": "liblzma5",
    "libssl.so.3": "libssl3",
}
"""The Debian and Ubuntu packages of the libraries that a mongod needs and a small system may lack."""

NEEDS_AVX = "from 5.0 on a mongod needs a processor with AVX; set embedded.mongod to an older one"

WORDS_LINES = 3
WORDS_CHARACTERS = 200

CAUSES = {
    re.compile(r"error while loading shared libraries: ([^\s:]+)"): (
        "{binary} cannot run, the shared library {found} is missing: install {package}, "
        "or set embedded.mongod to one made for this system"
    ),
    re.compile(r"die_with_parent cannot run it: (.+)"): (
        "{binary} is no mongod for this machine ({found}): correct embedded.mongod"
    ),
    re.compile(r"(No space left on device)"): "{found} for {folder}: free some, or choose another folder",
}
"""Signs in a log, and what they mean to an operator."""


class PortInUseError(EmbeddedError):
    """Another program listens on the port. Set embedded.port to another one, or to 0 for any free one."""


def explain(log: str, *, exit_code: int, binary: Path, folder: Path, port: int) -> EmbeddedError:
    """Return the error that names the cause and the remedy; `exit_code` is negative for a signal."""
    if "Address already in use" in log:
        return PortInUseError(f"port {port} of 127.0.0.1 is in use: set embedded.port to another, or to 0 for any")
    if "DBPathInUse" in log:
        return in_use(folder)
    for sign, meaning in CAUSES.items():
        if match := sign.search(log):
            package = LIBRARY_PACKAGES.get(match[1], "the package that holds it")
            return EmbeddedError(meaning.format(binary=binary, folder=folder, found=match[1], package=package))
    hint = NEEDS_AVX if exit_code == -signal.SIGILL else words(log)
    return EmbeddedError(f"{binary} ended with {_outcome(exit_code)}: {hint}")


def words(log: str) -> str:
    """Return what a person would look for in a log, on one line: its first errors, else how it ends."""
    lines = [line for line in log.splitlines() if line.strip()]
    severe = [line for line in lines if '"s":"F"' in line or '"s":"E"' in line]
    telling = severe[:WORDS_LINES] or lines[-WORDS_LINES:]
    return " | ".join(_brief(line) for line in telling) or "it said nothing; is it a mongod?"


def _outcome(exit_code: int) -> str:
    return f"exit code {exit_code}" if exit_code >= 0 else signal.Signals(-exit_code).name


def _brief(line: str) -> str:
    try:
        entry = json.loads(line)
        text = f"{entry['msg']} {json.dumps(entry.get('attr', {}))}"
    except (ValueError, TypeError, KeyError):
        text = line  # a loader's or a shell's message, or the log of a mongod before 4.4
    return text.strip()[:WORDS_CHARACTERS]
