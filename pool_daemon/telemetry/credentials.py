"""Masks credentials in text: everything with which a reader could log in to the database."""

import re
from typing import Final

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
