"""A receiver by HTTP: a CloudEvent in its structured JSON form, signed as Standard Webhooks describes."""

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from nacl.signing import SigningKey

from pool_daemon.clock import Clock
from pool_daemon.errors import ConfigurationError
from pool_daemon.notices.http import Poster, extra
from pool_daemon.notices.receiver import Outcome, digest_of
from pool_daemon.settings import notices as settings
from pool_daemon.settings.notices import PRIVATE, key_bytes

CONTENT_TYPE: Final = "application/cloudevents+json; charset=UTF-8"


class Webhook:
    """Posts signed events to one address.

    Raises ConfigurationError if there is nothing to sign with, or the libraries are missing.
    """

    name = "webhook"

    def __init__(self, *, webhook: settings.Webhook, clock: Clock) -> None:
        keys = webhook.keys.get_secret_value().split() if webhook.keys is not None else []
        if webhook.url is None or not keys:
            raise ConfigurationError("webhook.keys: missing; an event that is not signed could come from anybody")
        address = webhook.url.get_secret_value()
        self.timeout_seconds = webhook.timeout_seconds
        self.digest = digest_of(address, *keys)
        self._signer = extra("standardwebhooks", needed_by="webhook.url").Webhook
        self._keys = keys
        self._clock = clock
        self._poster = Poster(setting="webhook.url", url=address, timeout_seconds=webhook.timeout_seconds, clock=clock)

    async def send(self, event: Mapping[str, Any]) -> Outcome:
        """Post an event, and return what its receiver made of it."""
        body = json.dumps(event, separators=(",", ":"))
        headers = signed(self._signer, self._keys, str(event["id"]), body, self._clock)
        return await self._poster.post(body.encode(), {"content-type": CONTENT_TYPE, **headers})

    async def close(self) -> None:
        """Close connections."""
        await self._poster.close()


def signed(signer: Any, keys: Sequence[str], message_id: str, body: str, clock: Clock) -> dict[str, str]:
    """Return the headers that identify and sign a message, with one signature for each key."""
    at = datetime.fromtimestamp(math.floor(clock.now()), UTC)

    def signatures() -> Iterator[str]:
        for key in keys:
            if key.startswith(PRIVATE):
                text = f"{message_id}.{int(at.timestamp())}.{body}".encode()
                signature = SigningKey(key_bytes(key) or b"").sign(text).signature
                yield f"v1a,{base64.b64encode(signature).decode()}"
            else:
                yield signer(key).sign(message_id, at, body)

    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures()),
    }
