"""Views of single pools over HTTP: whatever clients do, the daemon and its database are asked little."""

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

import pytest
from deadline import wait_until
from telemetry_scene import make_ready, new_observer, read_in_a_loop, routes_of, served

from pool_daemon.errors import PoolNotFoundError, StoreRefusedError, StoreUnavailableError
from pool_daemon.telemetry.endpoint import Server
from pool_daemon.telemetry.endpoint.connection import Request, Response
from pool_daemon.telemetry.endpoint.pool_views import KEPT_SECONDS, MOST_BYTES, SPACING, SPACING_SECONDS, PoolViews

WAIT_SECONDS = 10


class Reader:
    """Reads nothing, counts how often and how many at once, and lasts until it is let go."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.at_once = 0
        self.most_at_once = 0
        self.let_go = threading.Event()
        self.let_go.set()
        self.error: Exception | None = None
        self.text = ""

    async def __call__(self, kind: str, number: int) -> dict[str, Any]:
        self.asked.append((kind, number))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.to_thread(self.let_go.wait, WAIT_SECONDS)
            if self.error is not None:
                raise self.error
        finally:
            self.at_once -= 1
        return {"pool": str(number), "text": self.text}


class Ticks:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


@pytest.fixture
def views(reader: Reader, ticks: Ticks) -> Iterator[PoolViews]:
    views = PoolViews(read=reader, monotonic=ticks)
    with read_in_a_loop(views):
        yield views
        reader.let_go.set()


def response(answer: Response | Future[Response] | None) -> Response:
    assert answer is not None
    return answer if isinstance(answer, Response) else answer.result(WAIT_SECONDS)


def ask(views: PoolViews, path: str) -> tuple[int, dict[str, Any]]:
    answer = response(views.answer(path))
    return answer.status, json.loads(answer.body)


def test_a_pool_and_an_owner_are_read_by_their_ids(views: PoolViews, reader: Reader, ticks: Ticks) -> None:
    assert ask(views, "/pools/17") == (200, {"pool": "17", "text": ""})
    ticks.now += 1
    assert ask(views, f"/owners/-{2**63}")[0] == 200
    assert reader.asked == [("pools", 17), ("owners", -(2**63))]


@pytest.mark.parametrize(
    "path",
    [
        *("/pools", "/pools/", "/pools/x", "/pools/1/2", "/pools/1.5", "/pools/+1", f"/pools/{2**63}"),
        *("/nodes/1", "/pools/\u0663", "/pools/1%20", f"/pools/{'1' * 5000}"),
    ],
)
def test_what_is_no_id_is_no_path(views: PoolViews, reader: Reader, path: str) -> None:
    assert views.answer(path) is None
    assert reader.asked == []


def test_one_view_is_read_at_a_time_and_others_are_told_to_come_back(views: PoolViews, reader: Reader) -> None:
    reader.let_go.clear()
    first = views.answer("/pools/1")
    assert isinstance(first, Future)
    wait_until(lambda: reader.asked, within_seconds=WAIT_SECONDS, what="the first read")
    refused = response(views.answer("/pools/2"))
    assert refused.status == 429
    assert ("Retry-After", "1") in refused.headers
    again = views.answer("/pools/1")
    reader.let_go.set()
    assert response(first) == response(again)
    assert reader.asked == [("pools", 1)]


def test_an_answer_is_given_again_for_a_second(views: PoolViews, reader: Reader, ticks: Ticks) -> None:
    assert ask(views, "/pools/1") == ask(views, "/pools/1")
    ticks.now += KEPT_SECONDS
    ask(views, "/pools/1")
    assert len(reader.asked) == 1
    ticks.now += 0.1
    ask(views, "/pools/1")
    assert len(reader.asked) == 2


def test_after_a_long_read_there_is_a_longer_pause(views: PoolViews, reader: Reader, ticks: Ticks) -> None:
    reader.let_go.clear()
    first = views.answer("/pools/1")
    wait_until(lambda: reader.asked, within_seconds=WAIT_SECONDS, what="the first read")
    ticks.now += 0.8
    reader.let_go.set()
    assert response(first).status == 200
    for part in (0.1, 0.8):
        ticks.now += part * SPACING * 0.8
        assert ask(views, "/pools/2")[0] == 429
    ticks.now += 0.2 * SPACING
    assert ask(views, "/pools/2")[0] == 200


@pytest.mark.parametrize(
    ("error", "status", "problem"),
    [
        (PoolNotFoundError("pool 7: the specified pool could not be found"), 404, "pool 7: the specified pool"),
        (StoreUnavailableError("no server at mongodb://me:secret@db/"), 503, "no server at mongodb://********@db/"),
        (StoreRefusedError("reading pool 7: operation exceeded time limit"), 503, "exceeded time limit"),
        (RuntimeError("a bug"), 500, "the log says why"),
    ],
)
def test_a_failure_is_an_answer_and_ends_nothing(
    views: PoolViews, reader: Reader, ticks: Ticks, error: Exception, status: int, problem: str
) -> None:
    reader.error = error
    found, shown = ask(views, "/pools/7")
    assert found == status
    assert problem in shown["problem"]
    reader.error = None
    ticks.now += KEPT_SECONDS + 1
    assert ask(views, "/pools/7")[0] == 200


def test_a_read_that_does_not_end_is_given_up() -> None:
    async def never(_kind: str, _number: int) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    views = PoolViews(read=never, limit_seconds=0.2)
    with read_in_a_loop(views):
        assert ask(views, "/pools/1") == (503, {"problem": "MongoDB has not answered for 0.2 s"})


def test_an_answer_that_is_too_long_is_not_given(views: PoolViews, reader: Reader) -> None:
    reader.text = "x" * MOST_BYTES
    status, shown = ask(views, "/pools/1")
    assert (status, "too long" in shown["problem"]) == (503, True)


def test_before_the_database_is_reached_there_is_no_view(reader: Reader) -> None:
    assert ask(PoolViews(read=reader), "/pools/1")[0] == 503
    assert reader.asked == []


def test_without_views_there_is_no_such_path_and_the_status_says_so() -> None:
    routes = routes_of(new_observer())
    assert response(routes.respond(Request("GET", "/pools/1"))).status == 404
    assert json.loads(response(routes.respond(Request("GET", "/statusz"))).body)["pool_views"] is False


def test_another_host_gets_no_view(views: PoolViews, reader: Reader) -> None:
    routes = routes_of(new_observer(), pool_views=views)
    assert response(routes.respond(Request("GET", "/pools/1", host="evil.example"))).status == 421
    assert response(routes.respond(Request("POST", "/pools/1"))).status == 405
    assert reader.asked == []


@contextmanager
def serving(read: Callable[[str, int], Awaitable[dict[str, Any]]], *, patience_seconds: float = 5) -> Iterator[Server]:
    """Serve views that are read in a loop of their own."""
    observer = new_observer()
    make_ready(observer)
    views = PoolViews(read=read)
    with (
        read_in_a_loop(views),
        served(observer, pool_views=views, patience_seconds=patience_seconds) as server,
    ):
        yield server


def get(server: Server, path: str, *, method: str = "GET") -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=WAIT_SECONDS)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_view_that_takes_its_time_delays_no_other_answer(reader: Reader) -> None:
    reader.let_go.clear()
    with serving(reader) as server, ThreadPoolExecutor() as clients:
        slow = [clients.submit(get, server, "/pools/1", method=method) for method in ("GET", "HEAD", "GET")]
        wait_until(lambda: reader.asked, within_seconds=WAIT_SECONDS, what="the read")
        for path in ("/livez", "/statusz", "/"):
            assert get(server, path)[0] == 200
        assert not any(each.done() for each in slow)
        reader.let_go.set()
        answers = [each.result(WAIT_SECONDS) for each in slow]
        assert [status for status, _ in answers] == [200, 200, 200]
        assert [bool(body) for _, body in answers] == [True, False, True]
        assert reader.asked == [("pools", 1)]


def test_a_client_that_hangs_up_or_waits_too_long_leaves_nothing_behind(reader: Reader) -> None:
    reader.let_go.clear()
    with serving(reader, patience_seconds=0.4) as server:
        impatient = HTTPConnection("127.0.0.1", server.port, timeout=WAIT_SECONDS)
        patient = HTTPConnection("127.0.0.1", server.port, timeout=WAIT_SECONDS)
        for client in (impatient, patient):
            client.request("GET", "/pools/1")
        wait_until(lambda: len(server._connections) == 2 and reader.asked, within_seconds=WAIT_SECONDS, what="two")
        impatient.close()
        wait_until(lambda: not server._connections, within_seconds=WAIT_SECONDS, what="no connection")
        patient.close()
        reader.let_go.set()
        assert get(server, "/livez")[0] == 200


def test_clients_that_hammer_it_have_one_view_read_at_a_time_and_few(reader: Reader) -> None:
    began = time.monotonic()
    with serving(reader) as server, ThreadPoolExecutor(8) as clients:
        statuses = [status for status, _ in clients.map(lambda each: get(server, f"/pools/{each}"), range(400))]
    lasted = time.monotonic() - began
    assert reader.most_at_once == 1
    assert set(statuses) == {200, 429}
    assert len(reader.asked) <= 2 + lasted / SPACING_SECONDS
