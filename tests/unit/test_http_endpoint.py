"""The endpoint as its clients meet it: real sockets, kind ones and others."""

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import pytest
from deadline import until, wait_until
from telemetry_scene import at_once, make_ready, new_observer, routes_of, running, served

from pool_daemon.errors import ConfigurationError, StoreError
from pool_daemon.telemetry.endpoint import Server
from pool_daemon.telemetry.endpoint.connection import HEAD_BYTES, Request, Response
from pool_daemon.telemetry.endpoint.server import MOST_CONNECTIONS, _most_connections
from pool_daemon.telemetry.observer import Observer

PATHS = ("/", "/metrics", "/livez", "/readyz", "/startupz", "/statusz")
AT_ONCE_SECONDS = 2
STANDS_STILL_SECONDS = 60
"""At most: the loop stands still until all questions are answered, however slow the machine is."""


@pytest.fixture
def observer() -> Observer:
    observer = new_observer()
    make_ready(observer)
    return observer


@pytest.fixture
def server(observer: Observer) -> Iterator[Server]:
    with served(observer) as server:
        yield server


@pytest.fixture
def hasty_server(observer: Observer) -> Iterator[Server]:
    with served(observer, patience_seconds=0.3) as server:
        yield server


def ask(server: Server, path: str, *, method: str = "GET", **headers: str) -> tuple[HTTPResponse, bytes]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def say(server: Server, text: bytes) -> bytes:
    """Send something and read until the server hangs up."""
    with connect(server) as client:
        client.sendall(text)
        return read_all(client)


def read_all(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65_536), b""))


def assert_answers_at_once(server: Server) -> None:
    asked_at = time.monotonic()
    assert ask(server, "/livez")[0].status == 200
    assert time.monotonic() - asked_at < AT_ONCE_SECONDS


@pytest.mark.parametrize("path", PATHS)
def test_every_path_answers_get_and_head(server: Server, path: str) -> None:
    got, body = ask(server, path)
    assert got.status == 200
    assert int(got.headers["Content-Length"]) == len(body) > 0
    assert got.headers["Cache-Control"] == "no-store"
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    assert got.headers["Connection"] == "close"
    assert "default-src 'none'" in got.headers["Content-Security-Policy"]
    head, nothing = ask(server, path, method="HEAD")
    assert (head.status, nothing) == (200, b"")
    assert head.headers["Content-Type"] == got.headers["Content-Type"]
    assert abs(int(head.headers["Content-Length"]) - len(body)) < 200  # figures change between two answers


@pytest.mark.parametrize("path", ["/nowhere", "/metrics/", "//", "/statusz.json", "/..", "/page.js", "*"])
def test_other_paths_are_not_found(server: Server, path: str) -> None:
    assert ask(server, path)[0].status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get", "BREW"])
@pytest.mark.parametrize("path", ["/", "/nowhere"])
def test_other_methods_are_not_allowed(server: Server, method: str, path: str) -> None:
    response, _ = ask(server, path, method=method)
    assert response.status == 405
    assert response.headers["Allow"] == "GET, HEAD"


def test_a_query_changes_nothing(server: Server) -> None:
    assert ask(server, "/livez?verbose=1")[0].status == 200


def test_each_answer_says_what_it_is(server: Server) -> None:
    types = {path: ask(server, path)[0].headers["Content-Type"] for path in PATHS}
    assert types == {
        "/": "text/html; charset=utf-8",
        "/metrics": "text/plain; version=0.0.4; charset=utf-8",
        "/livez": "text/plain; charset=utf-8",
        "/readyz": "text/plain; charset=utf-8",
        "/startupz": "text/plain; charset=utf-8",
        "/statusz": "application/json",
    }
    scrape, text = ask(server, "/metrics", Accept="application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1")
    assert scrape.headers["Content-Type"].startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")


def test_a_probe_that_must_say_no_says_why(observer: Observer, server: Server) -> None:
    observer.stopping(drain_seconds=60)
    response, text = ask(server, "/readyz")
    assert response.status == 503
    assert text.startswith(b"- running: is stopping\n+ database: ok\n")
    assert ask(server, "/livez")[0].status == 200


def test_statusz_is_the_whole_picture_and_tells_that_somebody_looks(observer: Observer, server: Server) -> None:
    observer.armed(2_000_000_000, pool_id=17)
    assert not observer.status.wanted()
    shown = json.loads(ask(server, "/statusz")[1])
    assert shown["next"] == {"at": 2_000_000_000, "pool_id": 17}
    assert shown["ready"] == {"ok": True, "problems": []}
    assert observer.status.wanted()


def test_no_answer_holds_credentials(observer: Observer, server: Server) -> None:
    for _ in range(3):
        observer.pass_failed(
            StoreError("mongodb://daemon:hunter2@db-1/: connection refused"), seconds=1, retry_seconds=1
        )
    for path in PATHS:
        assert b"hunter2" not in ask(server, path)[1]
    assert b"mongodb://********@db-1/" in ask(server, "/readyz")[1]


@pytest.mark.parametrize(
    "head",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"\xff\x00\xfe\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused(server: Server, head: bytes) -> None:
    assert say(server, head).startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_a_request_may_come_in_pieces(server: Server) -> None:
    with connect(server) as client:
        for piece in (b"GET /li", b"vez HTTP/1.1\r\nHost: localhost\r", b"\n\r\n"):
            client.sendall(piece)
        assert read_all(client).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_head_without_end_is_refused(server: Server) -> None:
    text = b"GET / HTTP/1.1\r\nCookie: " + b"x" * HEAD_BYTES
    assert say(server, text).startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")


def test_a_client_that_never_stops_sending_still_sees_why_it_is_refused(server: Server) -> None:
    with connect(server) as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 40000\r\n\r\n" + b"x" * 40_000)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client).startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")


def test_only_so_much_of_what_follows_a_request_is_read(server: Server) -> None:
    with connect(server) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
        assert is_dropped(client, saying=b"x" * 65_536, pause_seconds=0)


def test_a_client_that_drips_is_closed_however_busy_it_looks(hasty_server: Server) -> None:
    with connect(hasty_server) as client:
        assert is_dropped(client, saying=b"G", pause_seconds=0.02)


def is_dropped(client: socket.socket, *, saying: bytes, pause_seconds: float) -> bool:
    """Say something again and again, and tell whether the server puts an end to it within ten seconds."""
    deadline = time.monotonic() + 10
    try:
        while time.monotonic() < deadline:
            client.sendall(saying)
            time.sleep(pause_seconds)
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


def test_a_client_that_never_reads_is_closed() -> None:
    endless = Response(HTTPStatus.OK, b"x" * 50_000_000)
    asked: list[Request] = []

    def respond(request: Request) -> Response:
        asked.append(request)
        return endless

    server = Server(host="127.0.0.1", port=0, respond=respond, patience_seconds=0.3)
    with running(server), connect(server) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        wait_until(lambda: asked, within_seconds=20, what="the request to come")
        wait_until(lambda: not server._connections, within_seconds=20, what="the connection to be closed")


def test_slow_clients_in_any_number_lock_nobody_out(server: Server) -> None:
    slow = [connect(server) for _ in range(MOST_CONNECTIONS * 3)]
    try:
        for client in slow[-MOST_CONNECTIONS:]:
            client.sendall(b"GET / HTTP/1.1\r\nX: ")
        assert_answers_at_once(server)
        assert len(server._connections) <= MOST_CONNECTIONS
        assert slow[0].recv(1) == b""
    finally:
        for client in slow:
            client.close()


def test_clients_that_break_off_leave_nothing_behind(server: Server) -> None:
    for _ in range(200):
        with connect(server) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert_answers_at_once(server)
    wait_until(lambda: not server._connections, within_seconds=20, what="all connections to be gone")


def compute(seconds: float) -> None:
    """Keep the interpreter to itself, as far as it lets one."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pass


@pytest.mark.parametrize("block", [time.sleep, compute])
async def test_it_answers_while_the_loop_stands_still(server: Server, block: Callable[[float], None]) -> None:
    def asked_meanwhile() -> list[float]:
        latencies = []
        for path in PATHS * 5:
            began_at = time.monotonic()
            assert ask(server, path)[0].status == 200
            latencies.append(time.monotonic() - began_at)
        return latencies

    with ThreadPoolExecutor() as clients:
        asked = clients.submit(asked_meanwhile)
        deadline = time.monotonic() + STANDS_STILL_SECONDS
        while not asked.done() and time.monotonic() < deadline:
            block(0.1)
        assert asked.done(), "the endpoint waited for the loop"
        assert max(asked.result()) < AT_ONCE_SECONDS


def test_a_bug_in_an_answer_is_an_internal_error_and_the_next_is_answered() -> None:
    asked = []

    def respond(request: Request) -> Response:
        asked.append(request)
        raise RuntimeError("a bug")

    server = Server(host="127.0.0.1", port=0, respond=respond)
    with running(server):
        for _ in range(2):
            assert say(server, b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
        assert server.is_answering
    assert len(asked) == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_thread_that_dies_is_started_again_at_the_same_address() -> None:
    def respond(_: Request) -> Response:
        raise SystemExit

    server = Server(host="127.0.0.1", port=0, respond=respond)
    serving = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.is_answering, within_seconds=20, what="an answer")
        port = server.port
        for _ in range(2):
            assert await asyncio.to_thread(say, server, b"GET / HTTP/1.1\r\n\r\n") == b""
            dead = server._thread
            await until(
                lambda: server._thread is not dead and server.is_answering,  # noqa: B023 - awaited here
                within_seconds=20,
                what="a new thread",
            )
        assert server.port == port
    finally:
        serving.cancel()
        server.stop()


class CountingServer(Server):
    """Counts how often it has tried to start."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.tries = 0

    def start(self) -> None:
        self.tries += 1
        super().start()


async def test_a_port_that_is_taken_is_told_once_and_tried_until_it_is_free(
    observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pool_daemon.telemetry.endpoint.server.RETRY_SECONDS", 0.01)
    first = Server(host="127.0.0.1", port=0, respond=routes_of(observer).respond)
    first.start()
    problems: list[str | None] = []
    second = CountingServer(
        host="127.0.0.1", port=first.port, respond=routes_of(observer).respond, on_problem=problems.append
    )
    serving = asyncio.create_task(second.serve())
    try:
        await until(lambda: second.tries > 5, within_seconds=20, what="some tries")
        first.stop()
        await until(lambda: second.is_answering, within_seconds=20, what="the port")
        assert problems == [
            f"http.port: {first.port} is in use on 127.0.0.1; name another, or 0 for any free one",
            None,
        ]
        assert (await asyncio.to_thread(ask, second, "/livez"))[0].status == 200
    finally:
        serving.cancel()
        second.stop()


def test_a_port_that_is_taken_is_a_matter_of_configuration(server: Server, observer: Observer) -> None:
    second = Server(host="127.0.0.1", port=server.port, respond=routes_of(observer).respond)
    with pytest.raises(ConfigurationError, match=rf"http\.port: {server.port} is in use on 127\.0\.0\.1"):
        second.start()
    second.stop()


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid"])
def test_an_address_of_another_machine_is_a_matter_of_configuration(observer: Observer, host: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"http\.host: {host}: this machine cannot listen there"):
        Server(host=host, port=0, respond=routes_of(observer).respond).start()


@pytest.mark.parametrize(("descriptors", "connections"), [(-1, 32), (1024, 32), (64, 16), (49, 1), (26, 1)])
def test_clients_leave_the_database_its_file_descriptors(descriptors: int, connections: int) -> None:
    assert _most_connections(descriptors) == connections


def test_ipv6_is_served_too(observer: Observer) -> None:
    server = Server(host="::1", port=0, respond=routes_of(observer).respond)
    with running(server), socket.create_connection(("::1", server.port), timeout=10) as client:
        client.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert read_all(client).startswith(b"HTTP/1.1 200 OK\r\n")


def test_after_a_stop_the_port_is_free_again(observer: Observer) -> None:
    with served(observer) as first:
        ask(first, "/livez")
    with running(Server(host="127.0.0.1", port=first.port, respond=routes_of(observer).respond)):
        assert_answers_at_once(first)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "10.1.2.3:9464", "[::1]:9464", "localhost", "LocalHost.:80", "grid.example:9464", ""]
)
@pytest.mark.parametrize("path", PATHS)
def test_a_request_by_address_or_by_an_allowed_name_is_answered(observer: Observer, host: str, path: str) -> None:
    routes = routes_of(observer, allowed_hosts=["Grid.example"])
    assert at_once(routes.respond(Request("GET", path, host=host))).status == HTTPStatus.OK


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:9464", "[grid", "grid"]
)
@pytest.mark.parametrize("path", PATHS)
def test_a_request_for_another_host_is_refused_in_one_line(observer: Observer, host: str, path: str) -> None:
    routes = routes_of(observer, allowed_hosts=["grid.example"])
    response = at_once(routes.respond(Request("GET", path, host=host)))
    assert response.status == HTTPStatus.MISDIRECTED_REQUEST
    assert response.body.decode().splitlines() == [
        "The Host header is no IP address and not in http.allowed_hosts; ask by address, or add the name"
    ]


def test_the_host_that_a_browser_names_is_what_counts(server: Server) -> None:
    refused, body = ask(server, "/statusz", Host="rebound.example")
    assert refused.status == HTTPStatus.MISDIRECTED_REQUEST
    assert b"http.allowed_hosts" in body
    assert ask(server, "/statusz", Host=f"127.0.0.1:{server.port}")[0].status == HTTPStatus.OK


def test_a_probe_breaks_no_terminal(observer: Observer) -> None:
    for _ in range(10):
        observer.pass_failed(StoreError("\x1b[2J\nFORGED"), seconds=1, retry_seconds=1)
    answer = at_once(routes_of(observer).respond(Request("GET", "/readyz"))).body.decode()
    assert "10 passes failed in a row" in answer
    assert "\x1b" not in answer
    assert not any(line.startswith("FORGED") for line in answer.splitlines())
