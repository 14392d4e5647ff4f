"""The views of single pools and owners over HTTP: the only answers for which the database is asked.

Whatever a client does, at most one view is read at a time, reads take a third of the time at most, and an answer of the
last second is given again. The endpoint's thread asks, and a task in the event loop reads.
"""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from pool_daemon.errors import NotFoundError, StoreError
from pool_daemon.events import HTTP_FAILED
from pool_daemon.plain_text import mask_credentials
from pool_daemon.telemetry.endpoint.connection import Response
from pool_daemon.telemetry.logs import tell

PATH: Final = re.compile(r"/(pools|owners)/(-?[0-9]{1,19})")

INT64: Final = range(-(2**63), 2**63)

KEPT_SECONDS: Final = 1.0
"""For so long an answer is given again, to any number of clients."""

SPACING: Final = 2.0
"""Between two reads passes at least this multiple of the time that the first one took."""

SPACING_SECONDS: Final = 0.25
"""The least time between two reads."""

LIMIT_SECONDS: Final = 4.0
"""Time for a read; the reader has a limit of its own, which is shorter."""

MOST_BYTES: Final = 262_144
"""The longest answer; the reader bounds each text."""

Subject = tuple[str, int]
"""The kind, "pools" or "owners", and the id."""


@dataclass(frozen=True, slots=True)
class _Read:
    """A view that was read: when that ended (monotonic clock), and how long it took."""

    subject: Subject
    response: Response
    ended_monotonic: float
    seconds: float


class PoolViews:
    """Answers for the pools and owners that `read` reads; it may raise StoreError.

    `run` is the task that reads; `answer` belongs to the endpoint's thread.
    """

    def __init__(
        self,
        *,
        read: Callable[[str, int], Awaitable[dict[str, Any]]],
        limit_seconds: float = LIMIT_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._limit_seconds = limit_seconds
        self._monotonic = monotonic
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._asked: tuple[Subject, Future[Response]] | None = None
        self._last: _Read | None = None

    def answer(self, path: str) -> Response | Future[Response] | None:
        """Return the answer to a path, at once or when it has been read; None if it is not the path of a view."""
        match = PATH.fullmatch(path)
        if match is None or int(match[2]) not in INT64:
            return None
        subject = (match[1], int(match[2]))
        asked, last = self._asked, self._last  # in this order: the other thread writes the latter first
        if last is not None and last.subject == subject and self._monotonic() - last.ended_monotonic <= KEPT_SECONDS:
            return last.response
        if asked is not None:
            return asked[1] if asked[0] == subject else _busy()
        if last is not None and self._monotonic() - last.ended_monotonic < max(SPACING_SECONDS, SPACING * last.seconds):
            return _busy()
        return self._ask(subject)

    async def run(self) -> None:
        """Read one view after the other, as they are asked for."""
        self._loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._asked is None:
                continue
            subject, future = self._asked
            began = self._monotonic()
            response = await self._response(*subject)
            ended = self._monotonic()
            self._last = _Read(subject, response, ended, ended - began)
            self._asked = None
            future.set_result(response)

    def _ask(self, subject: Subject) -> Response | Future[Response]:
        if self._loop is None:
            return _problem(HTTPStatus.SERVICE_UNAVAILABLE, "the daemon has not reached MongoDB yet")
        future: Future[Response] = Future()
        self._asked = subject, future
        self._loop.call_soon_threadsafe(self._wake.set)
        return future

    async def _response(self, kind: str, number: int) -> Response:
        """Return the answer; a failure is one, too, and never ends the task."""
        try:
            async with asyncio.timeout(self._limit_seconds):
                shown = await self._read(kind, number)
        except NotFoundError as error:
            return _problem(HTTPStatus.NOT_FOUND, str(error))
        except StoreError as error:
            return _problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        except TimeoutError:
            return _problem(HTTPStatus.SERVICE_UNAVAILABLE, f"MongoDB has not answered for {self._limit_seconds:g} s")
        except Exception:  # noqa: BLE001 - logged with its traceback
            tell(HTTP_FAILED, path=f"/{kind}/{number}", exc_info=True)
            return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the log says why")
        response = _json(HTTPStatus.OK, shown)
        if len(response.body) > MOST_BYTES:
            return _problem(HTTPStatus.SERVICE_UNAVAILABLE, "the answer is too long: use `pool-daemon pools show`")
        return response


def _busy() -> Response:
    response = _problem(HTTPStatus.TOO_MANY_REQUESTS, "another view is being read, or was just now: ask again")
    return Response(response.status, response.body, response.content_type, (("Retry-After", "1"),))


def _problem(status: HTTPStatus, problem: str) -> Response:
    return _json(status, {"problem": problem})


def _json(status: HTTPStatus, shown: dict[str, Any]) -> Response:
    return Response(status, f"{mask_credentials(json.dumps(shown))}\n".encode(), "application/json")
