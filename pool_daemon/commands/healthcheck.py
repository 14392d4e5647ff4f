"""The probe for a container without another HTTP client."""

import argparse
import json

from pool_daemon.commands import add_config_argument
from pool_daemon.commands.http_client import Answer, ask
from pool_daemon.errors import ExitCode
from pool_daemon.plain_text import escaped_lines
from pool_daemon.settings import load_settings

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
