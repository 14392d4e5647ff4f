"""HTTP requests to the daemon on this machine, at the address in its settings."""

from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Final, NamedTuple

from pool_daemon.errors import ConfigurationError, NoAnswerError
from pool_daemon.settings import Http

ANSWER_SECONDS: Final = 3.0
"""A running daemon answers within milliseconds, even if its event loop is stuck."""

NEAREST: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - looked up, not listened on
"""Where to reach a daemon that listens on all addresses."""


class Answer(NamedTuple):
    """The answer; `is_good` is False for a probe's negative one."""

    is_good: bool
    text: str


def ask(http: Http, path: str) -> Answer:
    """Request one path.

    Raises NoAnswerError, or ConfigurationError if the settings do not give the address.
    """
    if not http.enabled:
        raise ConfigurationError("http.enabled: false, so no daemon can be asked")
    if http.port == 0:
        raise ConfigurationError("http.port: 0 may be any port; give the one that the running daemon logged")
    host = NEAREST.get(http.host, http.host)
    connection = HTTPConnection(host, http.port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        text = response.read().decode()
    except (OSError, HTTPException, UnicodeDecodeError) as error:
        raise NoAnswerError(f"no daemon answers at {host}:{http.port}: {error}") from error
    finally:
        connection.close()
    if response.status not in (HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE):
        raise NoAnswerError(
            f"what answers at {host}:{http.port} is no pool-daemon: {response.status} {response.reason}"
        )
    return Answer(response.status == HTTPStatus.OK, text)
