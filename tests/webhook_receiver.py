"""A receiver of webhooks on loopback: it keeps what it is sent, and answers what a test has it answer."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Request(NamedTuple):
    """A request as it came."""

    headers: Mapping[str, str]
    body: bytes
    path: str = ""

    @property
    def event(self) -> dict[str, Any]:
        """The event in the body."""
        event: dict[str, Any] = json.loads(self.body)
        return event


class WebhookReceiver:
    """Takes every request; `status` and `headers` are its answer, and `hang_seconds` how long it thinks."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.status = 204
        self.headers: dict[str, str] = {}
        self.hang_seconds = 0.0
        self.on_request: Callable[[dict[str, Any]], None] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events"

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of a type, each id once."""
        return list({each.event["id"]: each.event for each in self.requests if each.event["type"] == kind}.values())

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Be there for a while, at the same port as before."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                request = Request(dict(self.headers.items()), self.rfile.read(length), self.path)
                if len(request.body) < length:  # its sender was killed in the midst of it
                    return
                receiver.requests.append(request)
                if receiver.on_request is not None:
                    receiver.on_request(request.event)
                time.sleep(receiver.hang_seconds)
                self.send_response(receiver.status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        class QuietServer(ThreadingHTTPServer):
            daemon_threads = True  # one that hangs is not waited for

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Let a sender go that has given up."""

        server = QuietServer(("127.0.0.1", self.port), Handler)
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, name="webhook receiver", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
