"""What there is to be asked for, and who answers."""

import json
from collections.abc import Callable
from http import HTTPStatus

from pool_daemon.clock import Clock
from pool_daemon.telemetry.credentials import mask_credentials
from pool_daemon.telemetry.endpoint.message import METHODS, Request, Response, refusal
from pool_daemon.telemetry.endpoint.page import PAGE, POLICY
from pool_daemon.telemetry.endpoint.picture import picture
from pool_daemon.telemetry.health import Health, Patience, liveness, readiness, startup
from pool_daemon.telemetry.observer import Observer

Answer = Callable[[Request], Response]


class Routes:
    """Answers requests from the observer's status and metrics; never asks the loop or the database."""

    def __init__(self, *, observer: Observer, patience: Callable[[], Patience], clock: Clock) -> None:
        self._status = observer.status
        self._metrics = observer.metrics
        self._patience = patience
        self._clock = clock
        self._answers: dict[str, Answer] = {
            "/": self._page,
            "/metrics": self._scrape,
            "/livez": lambda _: _answer(liveness(self._status.snapshot, clock.monotonic())),
            "/readyz": lambda _: _answer(readiness(self._status.snapshot, clock.monotonic(), patience())),
            "/startupz": lambda _: _answer(startup(self._status.snapshot, self._clock.monotonic())),
            "/statusz": self._picture,
        }

    def respond(self, request: Request) -> Response:
        """Answer one request; safe in any thread."""
        if request.method not in METHODS:
            return refusal(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", ", ".join(METHODS)))
        answer = self._answers.get(request.path)
        return answer(request) if answer else refusal(HTTPStatus.NOT_FOUND)

    def _page(self, _request: Request) -> Response:
        return Response(HTTPStatus.OK, PAGE, "text/html; charset=utf-8", (("Content-Security-Policy", POLICY),))

    def _scrape(self, request: Request) -> Response:
        content_type, text = self._metrics.render(request.accept)
        return Response(HTTPStatus.OK, text, content_type)

    def _picture(self, _request: Request) -> Response:
        self._status.looked_at()
        shown = picture(
            self._status.snapshot, at=self._clock.now(), tick=self._clock.monotonic(), patience=self._patience()
        )
        text = mask_credentials(json.dumps(shown, allow_nan=False))
        return Response(HTTPStatus.OK, f"{text}\n".encode(), "application/json")


def _answer(health: Health) -> Response:
    status = HTTPStatus.OK if health.is_good else HTTPStatus.SERVICE_UNAVAILABLE
    return Response(status, mask_credentials(health.as_text()).encode())
