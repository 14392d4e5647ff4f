"""A question to the daemon that runs on this machine, at the address where its settings have it listen."""

from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Final, NamedTuple

from pool_daemon.errors import ConfigurationError, NoAnswerError
from pool_daemon.settings import Http

ANSWER_SECONDS: Final = 3.0
"""A daemon that is asked answers within milliseconds, even if its loop stands still."""

NEAREST: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - looked up, not listened on
"""Where to ask a daemon that listens everywhere."""


class Answer(NamedTuple):
    """What came back; `is_good` is False for the "no" of a probe."""

    is_good: bool
    text: str


def ask(http: Http, path: str) -> Answer:
    """Ask one thing.

    Raises NoAnswerError, or ConfigurationError if the settings do not tell where to ask.
    """
    if not http.enabled:
        raise ConfigurationError("http.enabled: false, so there is nobody to ask")
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
