"""One client of the endpoint: its request is read, answered and forgotten, without ever blocking for it.

An answer may come later, from another thread; the connection waits for it as it waits for a client.

HTTP is the subset in use: the head of a request, and a response that ends with its connection.
"""

import socket
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from http import HTTPStatus
from selectors import EVENT_READ, EVENT_WRITE
from typing import Final

from pool_daemon.events import HTTP_FAILED
from pool_daemon.telemetry.logs import tell

METHODS: Final = ("GET", "HEAD")

GUARDS: Final = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
)
"""Security headers of every response: not cached, no scripts, not shown in another site's frame."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request; `accept` and `host` are the headers of those names."""

    method: str
    path: str
    accept: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """A response; `headers` are added to those that every response has, or replace them."""

    status: HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


Answer = Response | Future[Response]
"""A response, or one that comes later."""


def parse(head: bytes) -> Request | None:
    """Parse the head of a request; None if it is not HTTP/1."""
    request_line, *header_lines = head.decode("latin-1").split("\r\n")
    words = request_line.split(" ")
    if len(words) != len(("method", "target", "version")) or not words[2].startswith("HTTP/1."):
        return None
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in header_lines)}
    return Request(words[0], words[1].partition("?")[0], headers.get("accept", ""), headers.get("host", ""))


def encode(response: Response, *, with_body: bool) -> bytes:
    """Encode a response; without its body it still has the body's Content-Length."""
    headers = {
        "Content-Type": response.content_type,
        "Content-Length": str(len(response.body)),
        "Connection": "close",
        **dict(GUARDS),
        **dict(response.headers),
    }
    head = [f"HTTP/1.1 {response.status.value} {response.status.phrase}"]
    head += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + (response.body if with_body else b"")


def refusal(status: HTTPStatus, *headers: tuple[str, str]) -> Response:
    """Return a response that contains only its status."""
    return Response(status, f"{status.phrase}\n".encode(), headers=headers)


def named_address(host: str) -> str:
    """Return the host of a `Host` header without its port, in lower case."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.rstrip(".").lower()


HEAD_BYTES: Final = 8192
"""The longest request head; no request meant for this daemon is longer."""

IGNORED_BYTES: Final = 65_536
"""Bytes that are read and discarded behind a request, so that a client that still sends receives its answer."""

OVER: Final = 0


class Connection:
    """Takes one step whenever its socket is ready: first it reads, then it writes, then it closes.

    `patience_seconds` bounds the reading of the request, the wait for its answer, and what follows;
    `deadline_monotonic` is when the current period ends. `on_answer` is called, in any thread, when an answer has come
    that was waited for: then `is_answered`, and the connection is to proceed.
    """

    def __init__(
        self,
        *,
        client: socket.socket,
        respond: Callable[[Request], Answer],
        patience_seconds: float,
        on_answer: Callable[[], None],
    ) -> None:
        client.settimeout(0)
        self._client = client
        self._respond = respond
        self._patience_seconds = patience_seconds
        self._on_answer = on_answer
        self._awaited: Future[Response] | None = None
        self._with_body = True
        self._head = b""
        self._outgoing = b""
        self._ignored = 0
        self._step = self._read
        self.deadline_monotonic = time.monotonic() + patience_seconds

    def proceed(self) -> int:
        """Do what the socket is ready for; return the selector's events to wait for next, or `OVER`."""
        try:
            return self._step()
        except BlockingIOError:
            return EVENT_WRITE if self._outgoing else EVENT_READ
        except OSError:
            return OVER

    @property
    def is_answered(self) -> bool:
        """Whether the answer has come that was waited for, and is not sent yet."""
        return self._awaited is not None and self._awaited.done()

    def close(self) -> None:
        """Close the connection at any stage."""
        self._client.close()

    def _read(self) -> int:
        received = self._client.recv(HEAD_BYTES - len(self._head))
        self._head += received
        head, end, _ = self._head.partition(b"\r\n\r\n")
        if end:
            return self._answer(parse(head))
        if len(self._head) >= HEAD_BYTES:
            return self._send(encode(refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE), with_body=True))
        return EVENT_READ if received else OVER

    def _answer(self, request: Request | None) -> int:
        if request is None:
            return self._send(encode(refusal(HTTPStatus.BAD_REQUEST), with_body=True))
        self._with_body = request.method != "HEAD"
        try:
            answer = self._respond(request)
        except Exception:  # noqa: BLE001 - logged with its traceback
            tell(HTTP_FAILED, path=request.path, exc_info=True)
            answer = refusal(HTTPStatus.INTERNAL_SERVER_ERROR)
        if isinstance(answer, Response):
            return self._send(encode(answer, with_body=self._with_body))
        self._awaited = answer
        self._step = self._wait
        self.deadline_monotonic = time.monotonic() + self._patience_seconds
        answer.add_done_callback(lambda _: self._on_answer())
        return EVENT_READ

    def _wait(self) -> int:
        """Send the answer if it has come; a client that hangs up before gets none."""
        if self._awaited is not None and self._awaited.done():
            response, self._awaited = self._awaited.result(), None
            return self._send(encode(response, with_body=self._with_body))
        return EVENT_READ if self._client.recv(HEAD_BYTES) else OVER

    def _send(self, outgoing: bytes) -> int:
        self._outgoing = outgoing
        self._step = self._write
        self.deadline_monotonic = time.monotonic() + self._patience_seconds
        return self._write()

    def _write(self) -> int:
        sent = self._client.send(self._outgoing)
        self._outgoing = self._outgoing[sent:]
        if self._outgoing:
            return EVENT_WRITE
        self._client.shutdown(socket.SHUT_WR)
        self._step = self._ignore
        return EVENT_READ

    def _ignore(self) -> int:
        """Wait for the client to close: closing while it still sends would lose its answer."""
        received = len(self._client.recv(HEAD_BYTES))
        self._ignored += received
        return EVENT_READ if received and self._ignored <= IGNORED_BYTES else OVER
