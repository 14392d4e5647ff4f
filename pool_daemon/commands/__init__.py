"""The commands, and the parser that knows them all.

A command is a line in `COMMANDS` and a module that has

- `EXAMPLES`, lines of shell for the end of its help;
- `add_arguments(parser)`, which declares its options (see `add_config_argument`);
- `run(arguments)`, which does the work and returns an ExitCode; it may raise any PoolDaemonError.

Only the module of the command in use is imported, so each module imports everything it needs at its top.
"""

import argparse
import textwrap
from collections.abc import Collection, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn, Protocol, cast

import pool_daemon
from pool_daemon.errors import ExitCode
from pool_daemon.plain_text import escaped, mask_credentials

INT64: Final = range(-(2**63), 2**63)
"""The ids that MongoDB can hold."""

NAMES_WIDTH: Final = 26
"""Columns for the names on the left; our longest name fits."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Does not break names at hyphens, and keeps an explanation on the line of its name."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, max_help_position=NAMES_WIDTH, **options)

    def add_argument(self, action: argparse.Action) -> None:
        """Record the width of a name; argparse does not count the indentation of the names of commands."""
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - argparse has no other name for it
            self._action_max_length += self._indent_increment

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)


def show_examples(parser: argparse.ArgumentParser, examples: Iterable[str]) -> None:
    """Append examples to a command's help, and to the help of each of its actions the examples that use it.

    Once an action is chosen, its parser reports the errors in the arguments behind it.
    """
    examples = tuple(examples)
    parser.epilog = _epilog(examples)
    for action in _actions_of(parser):
        action.formatter_class = HelpFormatter
        action.set_defaults(parser=action)
        action.epilog = _epilog(example for example in examples if f"{action.prog} " in f"{example} ")


def _epilog(examples: Iterable[str]) -> str:
    return "\n  ".join(["examples:", *examples])


def _actions_of(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to list them
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            yield from action.choices.values()


class Parser(argparse.ArgumentParser):
    """A parser whose error messages, which repeat the arguments, show no credentials and no control characters."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the error, and end the process."""
        super().error(mask_credentials(escaped(message)))


class CommandModule(Protocol):
    """The interface of a command's module."""

    EXAMPLES: Iterable[str]

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's options."""

    def run(self, arguments: argparse.Namespace) -> ExitCode:
        """Execute the command and return its exit code."""


class Command(NamedTuple):
    """A command's line in the list of commands, and the module behind it."""

    summary: str
    module: str

    def load(self) -> CommandModule:
        """Import the module, and with it everything that the command needs."""
        return cast("CommandModule", import_module(f"{__name__}.{self.module}"))


COMMANDS = {
    "run": Command("watch the pools and stop what drains the empty ones", "run"),
    "status": Command("show what the running daemon does and waits for", "status"),
    "healthcheck": Command("ask the running daemon whether it is alive, for a probe", "healthcheck"),
    "check-config": Command("show the settings in force, or what is wrong with them", "check_config"),
    "pools": Command("show the pools and when each runs empty, or change one", "pools"),
    "reservations": Command("show what customers order, and sign, verify or credit it", "reservations"),
    "workloads": Command("add a workload to a pool, to watch it end", "workloads"),
    "events": Command("show what was decommissioned or changed, when and why", "events"),
    "explain": Command("tell what happened to a pool or a workload, and what does not add up", "explain"),
    "orders": Command("show the delete orders that no node has carried out", "orders"),
    "brake": Command("show the pools that the brake holds, or release them", "brake"),
    "quarantine": Command("show the pools that keep failing, or have one tried again", "quarantine"),
    "notices": Command("show what owners were told of their pools, or try a receiver", "notices"),
    "grace": Command("show the pools in grace, or change when one's ends", "grace"),
    "policy": Command("show the grace of single owners, or change it", "policy"),
    "clock": Command("compare this machine's clock with the database's", "clock"),
    "demo": Command("show the daemon at work on a MongoDB of its own, for half a minute", "demo"),
    "bench": Command("measure the daemon beside what is there without it and what the server can do", "bench"),
    "version": Command("show the version", "version"),
    "completion": Command("print completions for a shell", "completion"),
}


def build_parser(loaded: Collection[str]) -> argparse.ArgumentParser:
    """Build the parser of the command line, complete for the commands in `loaded` and with the rest named.

    Its result has `run`, the function of the command, or None if no command was given, and `parser`, that of the
    command or of its action, whose suggestions fit best.
    """
    parser = Parser(
        prog="pool-daemon",
        description=pool_daemon.__doc__,
        epilog="Help on one command: pool-daemon COMMAND --help",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"pool-daemon {pool_daemon.__version__}")
    parser.set_defaults(run=None, parser=parser)
    subparsers = parser.add_subparsers(metavar="COMMAND", title="commands")
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(
            name,
            help=command.summary,
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            formatter_class=HelpFormatter,
            allow_abbrev=False,
        )
        if name in loaded:
            module = command.load()
            module.add_arguments(subparser)
            show_examples(subparser, module.EXAMPLES)
            subparser.set_defaults(run=module.run, parser=subparser)
    return parser


def add_config_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--config`, for commands that read settings."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="PATH",
        help="TOML file of settings (default: $POOL_DAEMON_CONFIG, else /etc/pool-daemon/config.toml if it exists). "
        "Secrets and the environment rank above it",
    )


def int64(text: str) -> int:
    """Read an id from the command line; one that MongoDB cannot hold is a usage error."""
    try:
        number = int(text)
    except ValueError:
        number = INT64.stop
    if number not in INT64:
        raise argparse.ArgumentTypeError(f"must be a whole number from {INT64[0]} to {INT64[-1]}")
    return number
