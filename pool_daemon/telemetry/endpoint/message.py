"""The subset of HTTP in use: the head of a request, and a response that ends with its connection."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

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
