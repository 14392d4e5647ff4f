"""A receiver by HTTP: a CloudEvent in its structured JSON form, signed as Standard Webhooks describes."""

import asyncio
import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import import_module
from typing import Any, Final

from nacl.signing import SigningKey

from pool_daemon.clock import Clock
from pool_daemon.errors import ConfigurationError
from pool_daemon.notices.receiver import Delivered, Failed, Gone, Outcome
from pool_daemon.settings import notices as settings
from pool_daemon.settings.notices import PRIVATE, key_bytes

CONTENT_TYPE: Final = "application/cloudevents+json; charset=UTF-8"

GONE: Final = 410

MOST_RETRY_SECONDS: Final = 86_400.0
"""The longest time for which a receiver may ask to be left alone."""

REASON_CHARACTERS: Final = 150


def _extra(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise ConfigurationError(
            f"webhook.url: {module} is missing; install the extra `webhooks`, as by pip install 'pool-daemon[webhooks]'"
        ) from None


class Webhook:
    """Posts events to one address; it follows no redirection, and reads nothing of an answer but its status.

    Raises ConfigurationError if there is nothing to sign with, or the libraries are missing.
    """

    name = "webhook"

    def __init__(self, *, webhook: settings.Webhook, clock: Clock) -> None:
        keys = webhook.keys.get_secret_value().split() if webhook.keys is not None else []
        if webhook.url is None or not keys:
            raise ConfigurationError("webhook.keys: missing; an event that is not signed could come from anybody")
        self._http = _extra("httpx2")
        self._signer = _extra("standardwebhooks").Webhook
        self._keys = keys
        self._url = webhook.url.get_secret_value()
        self._clock = clock
        self.timeout_seconds = webhook.timeout_seconds
        self._client = self._http.AsyncClient(timeout=webhook.timeout_seconds)

    async def send(self, event: Mapping[str, Any]) -> Outcome:
        """Post an event, and return what its receiver made of it."""
        body = json.dumps(event, separators=(",", ":"))
        headers = {
            "content-type": CONTENT_TYPE,
            **signed(self._signer, self._keys, str(event["id"]), body, self._clock),
        }
        try:
            async with (
                asyncio.timeout(self.timeout_seconds),
                self._client.stream("POST", self._url, content=body.encode(), headers=headers) as response,
            ):
                return self._outcome(response.status_code, response.headers.get("retry-after"))
        except TimeoutError:
            return Failed(f"no answer within {self.timeout_seconds:g} s")
        except (self._http.HTTPError, self._http.InvalidURL, OSError) as error:
            return Failed(f"{type(error).__name__}: {error}"[:REASON_CHARACTERS])

    async def close(self) -> None:
        """Close connections."""
        await self._client.aclose()

    def _outcome(self, status: int, retry_after: str | None) -> Outcome:
        if 200 <= status < 300:  # noqa: PLR2004 - the class of success
            return Delivered()
        if status == GONE:
            return Gone(f"status {status}")
        return Failed(f"status {status}", retry_seconds(retry_after, now=self._clock.now()))


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


def retry_seconds(retry_after: str | None, *, now: float) -> float | None:
    """Read the header Retry-After, a number of seconds or a date; None if there is none, or it is neither."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after) if retry_after.strip().isdecimal() else _until(retry_after, now)
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), MOST_RETRY_SECONDS)


def _until(date: str, now: float) -> float:
    moment = parsedate_to_datetime(date)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now
