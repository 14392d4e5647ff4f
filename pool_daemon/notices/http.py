"""Posts to receivers by HTTP, and says what their answers mean."""

import asyncio
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from importlib import import_module
from typing import Any, Final

from pool_daemon.clock import Clock
from pool_daemon.errors import ConfigurationError
from pool_daemon.notices.receiver import Delivered, Failed, Gone, Outcome, reason_of

GONE: Final = 410

MOST_RETRY_SECONDS: Final = 86_400.0
"""The longest time for which a receiver may ask to be left alone."""


def extra(module: str, *, needed_by: str) -> Any:
    """Import a library of the extra `webhooks`; raises ConfigurationError if it is missing."""
    try:
        return import_module(module)
    except ImportError:
        raise ConfigurationError(
            f"{needed_by}: {module} is missing; install the extra `webhooks`: in the sources, pip install '.[webhooks]'"
        ) from None


class Poster:
    """Posts to one address; it follows no redirection, and reads nothing of an answer but its status and Retry-After.

    `setting` names the address in the settings. Raises ConfigurationError if the library is missing.
    """

    def __init__(self, *, setting: str, url: str, timeout_seconds: float, clock: Clock) -> None:
        self._http = extra("httpx2", needed_by=setting)
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._client = self._http.AsyncClient(timeout=timeout_seconds)

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Outcome:
        """Post a body, and return what its receiver made of it within the time-out; raises nothing."""
        try:
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._client.stream("POST", self._url, content=body, headers=headers) as response,
            ):
                return self._outcome(response.status_code, response.headers.get("retry-after"))
        except TimeoutError:
            return Failed(f"no answer within {self._timeout_seconds:g} s")
        except (self._http.HTTPError, self._http.InvalidURL, OSError) as error:
            return Failed(reason_of(error))

    async def close(self) -> None:
        """Close connections."""
        await self._client.aclose()

    def _outcome(self, status: int, retry_after: str | None) -> Outcome:
        if 200 <= status < 300:  # noqa: PLR2004 - the class of success
            return Delivered()
        if status == GONE:
            return Gone(f"status {status}")
        return Failed(f"status {status}", retry_seconds(retry_after, now=self._clock.now()))


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
