"""Text that is safe for a terminal, a log line and a table.

Customers choose much of it, and addresses of MongoDB contain credentials.
"""

import re
from datetime import UTC, datetime
from typing import Any, Final

MOST_CHARACTERS: Final = 200
"""The longest id that is shown whole; MongoDB accepts megabytes as an id."""

LAST_DATE: Final = 253_402_300_799
"""The end of the year 9999, in unix seconds."""

_UNSEEN: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u0600-\u0605\u061c\u06dd\u070f\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff0-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)
"""Characters that move the cursor, break a line, change the reading direction, or are invisible."""


def escaped(text: str) -> str:
    r"""Return a text as one line in which every control character, line break and invisible mark shows as `\x1b`."""
    return _UNSEEN.sub(_code, text)


def escaped_lines(text: str) -> str:
    """Return a text with its own line breaks kept, each line escaped."""
    return "\n".join(map(escaped, text.split("\n")))


def cut(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return a text whole if it is short, else its beginning and an ellipsis."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def date(at: float, *, milliseconds: bool = False) -> str:
    """Return an instant (unix seconds) as a date in UTC; a bare number where that is beyond the calendar."""
    if not 0 <= at <= LAST_DATE:
        return str(int(at))
    moment = datetime.fromtimestamp(at, UTC)
    fraction = f".{moment.microsecond // 1000:03}" if milliseconds else ""
    return f"{moment:%Y-%m-%d %H:%M:%S}{fraction} UTC"


def shown_id(document_id: Any) -> Any:
    """Return an id for display: a number unchanged, anything else as escaped text of bounded length."""
    return document_id if isinstance(document_id, int | float | None) else cut(escaped(cut(str(document_id))))


def _code(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")


MASK: Final = "********"

PLACEHOLDER: Final = "USER:PASSWORD"
"""The placeholder in our own advice on how to write an address: no real credentials, left unmasked."""

# One slash is enough: an address given in place of a path has lost the other.
_SCHEME = re.compile(r"mongodb(?:\+srv)?:/+", re.IGNORECASE)
_WORD = re.compile(r"\S+")
_SECRET_OPTIONS = re.compile(r"(tlsCertificateKeyFilePassword=|AWS_SESSION_TOKEN:)[^&,\s]+", re.IGNORECASE)


def mask_credentials(text: str) -> str:
    """Replace users, passwords and secret options in every MongoDB address in a text.

    The time is linear in the length of the text: customers decide the content of log lines.
    """
    if "@" in text and _SCHEME.search(text):
        text = _WORD.sub(_masked, text)
    if "=" in text or ":" in text:
        text = _SECRET_OPTIONS.sub(rf"\1{MASK}", text)
    return text


def _masked(word: re.Match[str]) -> str:
    """Mask up to the last @, because a password that was not escaped may itself hold one."""
    text = word.group()
    scheme = _SCHEME.search(text)
    end = text.rfind("@")
    if scheme is None or end < scheme.end() or text[scheme.end() : end] == PLACEHOLDER:
        return text
    return f"{text[: scheme.end()]}{MASK}{text[end:]}"
