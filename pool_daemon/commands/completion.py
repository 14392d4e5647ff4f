"""Completion scripts for the shells that shtab supports."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import shtab

from pool_daemon.commands import COMMANDS, build_parser
from pool_daemon.errors import ExitCode

EXAMPLES = (
    "source <(pool-daemon completion bash)",
    "pool-daemon completion zsh > ~/.zfunc/_pool-daemon",
)

UNKNOWN: Final = {"zsh": "( )"}
"""The completion of an id: none. Without an entry zsh would not complete the options beside it either."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the shell."""
    parser.add_argument("shell", choices=shtab.SUPPORTED_SHELLS, help="the shell to complete for")


def run(arguments: argparse.Namespace) -> ExitCode:
    """Print the completion script."""
    parser = build_parser(loaded=COMMANDS)
    for action in _actions(parser):
        if action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # where shtab looks for it
        elif action.type is not None and not action.option_strings:
            action.complete = UNKNOWN  # type: ignore[attr-defined]  # as above
    print(shtab.complete(parser, arguments.shell))
    return ExitCode.OK


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to list them
        yield action
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            for subparser in action.choices.values():
                yield from _actions(subparser)
