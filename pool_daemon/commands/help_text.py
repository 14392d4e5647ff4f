"""The layout of help: as wide as necessary, words unbroken, and examples verbatim."""

import argparse
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any, Final

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
