"""What must never be said: whatever would let a reader log in to the database."""

import re

MASK = "********"

# Up to the last @, because a password that was not escaped may itself hold one. One slash is enough: an address
# given where a path belongs has lost the other.
_USER_AND_PASSWORD = re.compile(r"(mongodb(?:\+srv)?:/+)\S*@")
_SECRET_OPTIONS = re.compile(r"(tlsCertificateKeyFilePassword=|AWS_SESSION_TOKEN:)[^&,\s]+", re.IGNORECASE)


def mask_credentials(text: str) -> str:
    """Replace users, passwords and secret options in every MongoDB address that the text holds."""
    if ":" not in text and "=" not in text:  # neither pattern can match: most texts end here
        return text
    return _SECRET_OPTIONS.sub(rf"\1{MASK}", _USER_AND_PASSWORD.sub(rf"\1{MASK}@", text))
