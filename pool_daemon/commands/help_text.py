"""How help looks: as wide as it needs, words whole, and the examples as they are to be typed."""

import argparse
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any, Final

NAMES_WIDTH: Final = 26
"""Columns for the names on the left; the longest of ours fit."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Leaves names with hyphens whole, and keeps what a name means on its line."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, max_help_position=NAMES_WIDTH, **options)

    def add_argument(self, action: argparse.Action) -> None:
        """Note how wide a name is; argparse forgets that the names of commands stand further in."""
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - argparse has no other name for it
            self._action_max_length += self._indent_increment

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)


def show_examples(parser: argparse.ArgumentParser, examples: Iterable[str]) -> None:
    """Put examples at the end of a command's help, and of the help of each of its actions those that use it.

    An action that is chosen is the parser that complains of what follows it.
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
