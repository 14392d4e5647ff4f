"""The paths of the endpoint, and the handler of each."""

import ipaddress
import json
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Final

from pool_daemon.clock import Clock
from pool_daemon.plain_text import mask_credentials
from pool_daemon.telemetry.endpoint.connection import METHODS, Answer, Request, Response, named_address, refusal
from pool_daemon.telemetry.endpoint.page import PAGE, POLICY
from pool_daemon.telemetry.endpoint.pool_views import PoolViews
from pool_daemon.telemetry.endpoint.status_json import status_json
from pool_daemon.telemetry.health import Health, StalenessLimits, liveness, readiness, startup
from pool_daemon.telemetry.observer import Observer

LOCALHOST: Final = "localhost"

NOT_ALLOWED: Final = (
    b"The Host header is no IP address and not in http.allowed_hosts; ask by address, or add the name\n"
)
"""The answer to a request for another host. It does not repeat the name, which anyone may have chosen."""


class Routes:
    """Answers requests from the observer's status and metrics, and views of single pools from `pool_views`.

    Only the latter ask the database, within limits of their own; without them there are no views.

    DNS rebinding: a web site could point its name here and have a browser behind the firewall read everything. So a
    request has to name an IP address, localhost, or one of the names in `allowed_hosts`.
    """

    def __init__(
        self,
        *,
        observer: Observer,
        staleness_limits: Callable[[], StalenessLimits],
        clock: Clock,
        allowed_hosts: Iterable[str] = (),
        pool_views: PoolViews | None = None,
    ) -> None:
        self._pool_views = pool_views
        self._allowed_hosts = {LOCALHOST, *map(named_address, allowed_hosts)}
        self._status = observer.status
        self._metrics = observer.metrics
        self._staleness_limits = staleness_limits
        self._clock = clock
        self._answers: dict[str, Callable[[Request], Response]] = {
            "/": self._page,
            "/metrics": self._scrape,
            "/livez": lambda _: _answer(liveness(self._status.snapshot, clock.monotonic())),
            "/readyz": lambda _: _answer(readiness(self._status.snapshot, clock.monotonic(), staleness_limits())),
            "/startupz": lambda _: _answer(startup(self._status.snapshot, self._clock.monotonic())),
            "/statusz": self._picture,
        }

    def respond(self, request: Request) -> Answer:
        """Answer one request, in the endpoint's thread."""
        if request.method not in METHODS:
            return refusal(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", ", ".join(METHODS)))
        if request.host and not self._is_allowed(named_address(request.host)):
            return Response(HTTPStatus.MISDIRECTED_REQUEST, NOT_ALLOWED)
        answer = self._answers.get(request.path)
        if answer is not None:
            return answer(request)
        view = None if self._pool_views is None else self._pool_views.answer(request.path)
        return view or refusal(HTTPStatus.NOT_FOUND)

    def _is_allowed(self, name: str) -> bool:
        return name in self._allowed_hosts or _is_ip_address(name)

    def _page(self, _request: Request) -> Response:
        return Response(HTTPStatus.OK, PAGE, "text/html; charset=utf-8", (("Content-Security-Policy", POLICY),))

    def _scrape(self, request: Request) -> Response:
        content_type, text = self._metrics.render(request.accept)
        return Response(HTTPStatus.OK, text, content_type)

    def _picture(self, _request: Request) -> Response:
        self._status.looked_at()
        shown = status_json(
            self._status.snapshot,
            at=self._clock.now(),
            tick=self._clock.monotonic(),
            staleness_limits=self._staleness_limits(),
        ) | {"pool_views": self._pool_views is not None}
        text = mask_credentials(json.dumps(shown, allow_nan=False))
        return Response(HTTPStatus.OK, f"{text}\n".encode(), "application/json")


def _is_ip_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _answer(health: Health) -> Response:
    status = HTTPStatus.OK if health.is_good else HTTPStatus.SERVICE_UNAVAILABLE
    return Response(status, mask_credentials(health.as_text()).encode())
