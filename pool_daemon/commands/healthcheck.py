"""The probe of a container that has no other way to ask."""

import argparse

from pool_daemon.commands import add_config_argument
from pool_daemon.commands.inquiry import ask
from pool_daemon.errors import ExitCode
from pool_daemon.settings import load_settings

EXAMPLES = (
    "pool-daemon healthcheck",
    "pool-daemon healthcheck --ready --config /etc/pool-daemon/config.toml",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `--config` and the question."""
    add_config_argument(parser)
    question = parser.add_mutually_exclusive_group()
    question.set_defaults(path="/livez")
    for option, path, about in (
        ("--live", "/livez", "ask whether it is alive: its event loop comes round (the default)"),
        ("--ready", "/readyz", "ask whether it is ready: it would act in time if a pool ran empty now"),
        ("--started", "/startupz", "ask whether it has started: the database was reached and has its indexes"),
    ):
        question.add_argument(option, dest="path", action="store_const", const=path, help=about)


def run(arguments: argparse.Namespace) -> ExitCode:
    """Print the daemon's answer; FAILED if it is no, or there is none."""
    answer = ask(load_settings(arguments.config).http, arguments.path)
    print(answer.text, end="")
    return ExitCode.OK if answer.is_good else ExitCode.FAILED
