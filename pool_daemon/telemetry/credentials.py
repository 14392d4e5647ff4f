"""What must never be said: whatever would let a reader log in to the database."""

import re
from typing import Final

MASK: Final = "********"

PLACEHOLDER: Final = "USER:PASSWORD"
"""The credentials in our own advice on how an address looks, which hide nobody's."""

# One slash is enough: an address given where a path belongs has lost the other.
_SCHEME = re.compile(r"mongodb(?:\+srv)?:/+", re.IGNORECASE)
_WORD = re.compile(r"\S+")
_SECRET_OPTIONS = re.compile(r"(tlsCertificateKeyFilePassword=|AWS_SESSION_TOKEN:)[^&,\s]+", re.IGNORECASE)


def mask_credentials(text: str) -> str:
    """Replace users, passwords and secret options in every MongoDB address that the text holds.

    The time it takes grows no faster than the text: customers decide what stands in a log line.
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
