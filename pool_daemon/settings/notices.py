"""The sections of the settings for notices: when one is due, and who receives it."""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from pool_daemon.durations import seconds_of
from pool_daemon.settings.fields import Section, split

SHORTEST_LEAD_SECONDS: Final = 60
LONGEST_LEAD_SECONDS: Final = 366 * 86_400

MOST_LEADS: Final = 10

SYMMETRIC: Final = "whsec_"
"""Begins a secret of Standard Webhooks that both sides share: 24 to 64 bytes in base64."""

PRIVATE: Final = "whsk_"
"""Begins a private key of Standard Webhooks: the 32 bytes of an Ed25519 seed in base64."""

KEY_BYTES: Final = {SYMMETRIC: range(24, 65), PRIVATE: range(32, 33)}

_URL: Final = re.compile(r"https?://[^\s/?#@]+(:\d{1,5})?([/?][!-~]*)?", re.ASCII)


def lead_seconds(lead: str) -> int:
    """Return the length of a lead, such as 30min, 1h or 7d; 0 if it is none."""
    return seconds_of(lead) or 0


def key_bytes(key: str) -> bytes | None:
    """Return the bytes of a secret or a private key of Standard Webhooks; None if it is neither."""
    for prefix, sizes in KEY_BYTES.items():
        if key.startswith(prefix):
            try:
                found = base64.b64decode(key.removeprefix(prefix), validate=True)
            except binascii.Error:
                return None
            return found if len(found) in sizes else None
    return None


def _usable_leads(leads: Sequence[str]) -> Sequence[str]:
    seconds = [lead_seconds(lead) for lead in leads]
    if len(seconds) > MOST_LEADS or any(not SHORTEST_LEAD_SECONDS <= each <= LONGEST_LEAD_SECONDS for each in seconds):
        raise ValueError(f'must be up to {MOST_LEADS} durations from 1min to 366d, such as "7d, 1d, 1h"')
    if len(set(seconds)) < len(seconds):
        raise ValueError("must name each duration once")
    return leads


def _usable_url(url: SecretStr) -> SecretStr:
    if _URL.fullmatch(url.get_secret_value()):
        return url
    raise ValueError("must look like https://HOST/PATH, without a user or a password")


def _usable_keys(keys: SecretStr) -> SecretStr:
    if all(key_bytes(key) is not None for key in keys.get_secret_value().split()):
        return keys
    raise ValueError(
        "must be secrets of Standard Webhooks with a space between two: whsec_ and 24 to 64 bytes in base64, or whsk_ "
        "and the 32 bytes of an Ed25519 key in base64"
    )


Leads = Annotated[list[str], BeforeValidator(split), AfterValidator(_usable_leads)]
Url = Annotated[SecretStr, AfterValidator(_usable_url)]
Keys = Annotated[SecretStr, AfterValidator(_usable_keys)]


class Notices(Section):
    """Notices before a pool runs empty, and of its end; off unless `before` names a time."""

    before: Leads = Field(
        default=[],
        description="How long before its end the owner of a pool is told, such as 7d, 1d and 1h: a list, or text with "
        "commas. Each is told once, until the pool lasts a tenth longer than that again. Empty, nothing is told, and "
        "nothing of notices runs or is written.",
    )
    interval_seconds: float = Field(
        default=60,
        ge=0.1,
        le=3600,
        description="Seconds between two searches for pools whose end has come near. Each reads the pools that end "
        "within the longest time of notices.before, by the index on empty_at.",
    )
    crowd_pools: int = Field(
        default=20,
        ge=1,
        le=1000,
        description="Pools of one owner that one search tells one by one at most; more are told together in one event.",
    )
    keep_seconds: float = Field(
        default=604_800,
        ge=3600,
        le=31_536_000,
        description="Seconds for which an event stays in pool-daemon-outbox, delivered or not. After that it is no "
        "longer sent.",
    )


class Webhook(Section):
    """A receiver of notices: CloudEvents by HTTP, signed as Standard Webhooks. Needs the extra `webhooks`."""

    url: Url | None = Field(
        default=None,
        examples=["https://hooks.example.org/pool-daemon"],
        description="Address to which each event is posted. Without it events are only written to pool-daemon-outbox, "
        "for whatever follows that by a change stream. Kept secret, as it may hold a token.",
    )
    keys: Keys | None = Field(
        default=None,
        examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        description="What each event is signed with, needed with webhook.url: a shared secret (whsec_), a private "
        "key (whsk_), or, while one is replaced, both the new and the old with a space between. A secret: better kept "
        "in the secrets folder, as a file named webhook__keys, than in this file.",
    )
    timeout_seconds: float = Field(
        default=10,
        ge=0.1,
        le=60,
        description="Seconds that the receiver may take to answer. One event is sent at a time.",
    )


class Alertmanager(Section):
    """A receiver of notices for operators: Prometheus's Alertmanager. Needs the extra `webhooks`."""

    url: Url | None = Field(
        default=None,
        examples=["http://localhost:9093"],
        description="Address of the Alertmanager, without /api/v2/alerts. Each pool of an event is an alert there.",
    )
    timeout_seconds: float = Field(
        default=10,
        ge=0.1,
        le=60,
        description="Seconds that it may take to answer. One event is sent at a time.",
    )
