"""The sockets of the endpoint: one thread, a bounded number of clients, and no client blocks another."""

import asyncio
import errno
import resource
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Final

from pool_daemon.errors import ConfigurationError
from pool_daemon.events import HTTP_ENDED, HTTP_LISTENING, HTTP_UNAVAILABLE
from pool_daemon.telemetry.endpoint.connection import OVER, Answer, Connection, Request
from pool_daemon.telemetry.logs import tell

MOST_CONNECTIONS: Final = 32
"""A scraper, probes and some pages need a handful. When all are taken the oldest is closed: an honest client has long
been answered, and one that keeps connections open locks no other out."""

RESERVED_DESCRIPTORS: Final = 48
"""File descriptors never given to clients, where the process has a low limit: the database needs them."""

PATIENCE_SECONDS: Final = 5.0
"""Time for a client to send its request, and again to read the answer."""

PAUSE_SECONDS: Final = 0.05
"""A pause after the system refused a connection, as it does without free file descriptors: it would refuse the next,
too."""

WAKES: Final = 4096
"""Calls to wake the thread that are taken at once."""

RETRY_SECONDS: Final = 5.0
"""Interval between attempts to listen on an address that is not available."""

CHECK_SECONDS: Final = 1.0
"""Interval at which the thread is checked."""


class Server:
    """Answers requests with `respond`, which is called in the server's own thread and must be quick.

    It may return a future instead; its result is awaited without blocking another client.

    `port` 0 takes any free one; after the start `port` is the one that was taken. `on_problem` is called with the
    reason when the endpoint becomes unreachable, and with None once it is reachable again.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        respond: Callable[[Request], Answer],
        patience_seconds: float = PATIENCE_SECONDS,
        on_problem: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        self.host = host
        self.port = port
        self._respond = respond
        self._patience_seconds = patience_seconds
        self._connections: dict[socket.socket, Connection] = {}
        self._most_connections = _most_connections(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self._on_problem = on_problem
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._wake: socket.socket | None = None

    async def serve(self) -> None:
        """Answer until cancelled.

        If the address or a file descriptor is not available, the start is retried; so is a thread that has died. The
        rest of the daemon does not depend on the endpoint.
        """
        told: str | None = None
        while True:
            problem = None if self.is_answering else self._try_to_start()
            if problem is not None and problem != told:
                tell(HTTP_UNAVAILABLE, reason=problem, retry_seconds=RETRY_SECONDS)
            if problem != told:
                self._on_problem(problem)
            told = problem
            await asyncio.sleep(CHECK_SECONDS if problem is None else RETRY_SECONDS)

    @property
    def is_answering(self) -> bool:
        """Whether the thread is alive."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Listen, and answer from now on.

        Raises ConfigurationError if the address is not available, OSError if the system has no more descriptors.
        """
        if self._wake is not None:
            self._wake.close()
        with ExitStack() as undo:
            self._listener = undo.enter_context(_listen(self.host, self.port))
            self._selector = undo.enter_context(selectors.DefaultSelector())
            self._wake, self._woken = (undo.enter_context(end) for end in socket.socketpair())
            for end in (self._wake, self._woken):
                end.settimeout(0)
            undo.pop_all()
        self.port = self._listener.getsockname()[1]
        for readable in (self._listener, self._woken):
            self._selector.register(readable, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._thread.start()
        tell(HTTP_LISTENING, host=self.host, port=self.port)

    def _try_to_start(self) -> str | None:
        """Start; return the reason if that is not possible now."""
        if self._thread is not None:
            tell(HTTP_ENDED, remedy="it is started again; report the traceback before this line as a bug")
        try:
            self.start()
        except (ConfigurationError, OSError) as error:
            return str(error)
        return None

    def stop(self) -> None:
        """Drop every client and end the thread; does nothing if it was never started."""
        self._stopping.set()
        if self._wake is not None and self._thread is not None:
            self._wake.close()
            self._thread.join()

    def _run(self) -> None:
        with self._selector, self._listener, self._woken:
            try:
                while not self._stopping.is_set():
                    for key, _ in self._selector.select(self._until_next_deadline()):
                        self._proceed(key.fileobj)
                    self._drop_overdue()
            finally:
                for client in list(self._connections):
                    self._drop(client)

    def _proceed(self, ready: object) -> None:
        if ready is self._listener:
            self._accept()
        elif ready is self._woken:
            with suppress(BlockingIOError):
                self._woken.recv(WAKES)
            for client in [client for client, each in self._connections.items() if each.is_answered]:
                self._proceed(client)
        elif isinstance(ready, socket.socket) and (connection := self._connections.get(ready)):
            events = connection.proceed()
            if events == OVER:
                self._drop(ready)
            else:
                self._selector.modify(ready, events)

    def _answered(self) -> None:
        """Wake the thread: an answer has come. A full pipe wakes it as well, and a closed one belongs to a stop."""
        if self._wake is not None:
            with suppress(OSError):
                self._wake.send(b"\0")

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            time.sleep(PAUSE_SECONDS)
            return
        if len(self._connections) >= self._most_connections:
            self._drop(next(iter(self._connections)))
        self._connections[client] = Connection(
            client=client,
            respond=self._respond,
            patience_seconds=self._patience_seconds,
            on_answer=self._answered,
        )
        self._selector.register(client, selectors.EVENT_READ)

    def _drop(self, client: socket.socket) -> None:
        self._selector.unregister(client)
        self._connections.pop(client).close()

    def _drop_overdue(self) -> None:
        tick = time.monotonic()
        overdue = [client for client, each in self._connections.items() if each.deadline_monotonic <= tick]
        for client in overdue:
            self._drop(client)

    def _until_next_deadline(self) -> float | None:
        ticks = [connection.deadline_monotonic for connection in self._connections.values()]
        return max(0.0, min(ticks) - time.monotonic()) if ticks else None


def _most_connections(descriptors: int) -> int:
    """Return how many clients may be connected at once, given the process's limit of open files."""
    if descriptors == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(1, min(MOST_CONNECTIONS, descriptors - RESERVED_DESCRIPTORS))


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, dualstack_ipv6=host == "::")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            problem = f"http.port: {port} is in use on {host}; name another, or 0 for any free one"
        elif error.errno == errno.EACCES:
            problem = f"http.port: {port} needs a privilege; name one above 1023"
        else:
            problem = f"http.host: {host}: this machine cannot listen there: {error.strerror}"
        raise ConfigurationError(problem) from error
