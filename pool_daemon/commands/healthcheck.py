"""The probe for a container without an HTTP client, and requests to the daemon at the address in its settings."""

import argparse
import json
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Final, NamedTuple

from pool_daemon.commands import add_config_argument
from pool_daemon.errors import ConfigurationError, ExitCode, NoAnswerError
from pool_daemon.plain_text import escaped_lines
from pool_daemon.settings import Http, load_settings

ANSWER_SECONDS: Final = 3.0
"""A running daemon answers within milliseconds, even if its event loop is stuck."""

NEAREST: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - looked up, not listened on
"""The address at which a daemon that listens on all addresses is reached."""


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


EXAMPLES = (
    "pool-daemon healthcheck",
    "pool-daemon healthcheck --ready --config /etc/pool-daemon/config.toml",
    "pool-daemon healthcheck --ready --json | jq .problems",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `--config`, `--json` and the question."""
    add_config_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    question = parser.add_mutually_exclusive_group()
    question.set_defaults(path="/livez")
    for option, path, about in (
        ("--live", "/livez", "ask whether it is alive: its event loop comes round (the default)"),
        ("--ready", "/readyz", "ask whether it is ready: it would act in time if a pool ran empty now"),
        ("--started", "/startupz", "ask whether it has started: the database was reached and has its indexes"),
    ):
        question.add_argument(option, dest="path", action="store_const", const=path, help=about)


def run(arguments: argparse.Namespace) -> ExitCode:
    """Print the daemon's answer; FAILED if it is negative, or there is none."""
    answer = ask(load_settings(arguments.config).http, arguments.path)
    print(_as_json(answer) if arguments.json else escaped_lines(answer.text), end="")
    return ExitCode.OK if answer.is_good else ExitCode.FAILED


def _as_json(answer: Answer) -> str:
    """Convert the lines `+ NAME: ok` and `- NAME: PROBLEM` to JSON."""
    marked = (line.partition(": ") for line in answer.text.splitlines())
    problems = {name.removeprefix("- "): problem for name, _, problem in marked if name.startswith("- ")}
    return json.dumps({"ok": answer.is_good, "problems": problems}) + "\n"
