"""The settings in force, and the source of each."""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from pool_daemon.clock import SystemClock
from pool_daemon.commands import add_config_argument
from pool_daemon.embedded import find_mongod
from pool_daemon.errors import ExitCode, StoreUnavailableError
from pool_daemon.notices.parts import receivers_of
from pool_daemon.plain_text import mask_credentials
from pool_daemon.settings import Settings, Sources, example_toml
from pool_daemon.store.address import read_address
from pool_daemon.store.client import connect

EXAMPLES = (
    "pool-daemon check-config --config /etc/pool-daemon/config.toml",
    "pool-daemon check-config --json | jq .database",
    "pool-daemon check-config --example > config.toml",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `--config`, `--json` and `--example`."""
    add_config_argument(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON instead of text")
    form.add_argument("--example", action="store_true", help="print a file with every setting explained, and stop")


def run(arguments: argparse.Namespace) -> ExitCode:
    """Print every setting with its source; secrets are masked. Raises what `run` would raise before it connects."""
    if arguments.example:
        print(example_toml(), end="")
        return ExitCode.OK
    sources = Sources(config=arguments.config, environ=os.environ)
    settings = sources.load()
    shown = {
        section: {field: {"value": value, "from": sources.place_of(section, field)} for field, value in fields.items()}
        for section, fields in settings.masked().items()
    }
    _try_out(settings)
    if exposed := sources.exposed():
        print(f"database.uri: every user of this machine can read {exposed}: run chmod o-r", file=sys.stderr)
    # An address given as another setting is masked, too.
    print(mask_credentials(json.dumps(shown, indent=2) if arguments.json else _as_text(shown)))
    return ExitCode.OK


def _try_out(settings: Settings) -> None:
    """Reject, as `run` would, an invalid address, an embedded mongod that cannot be found, or an unusable receiver.

    Nothing is sent: a server that does not answer is not an error of the settings.
    """
    if settings.notices.before:
        receivers_of(settings, clock=SystemClock())
    if settings.database.uri is None:
        find_mongod(settings.embedded.mongod)
        return
    uri = settings.database.uri.get_secret_value()
    with suppress(StoreUnavailableError):
        connect(uri=uri, name=settings.database.name).close()
    if ignored := read_address(uri).ignored:
        print(f"database.uri: {', '.join(ignored)}: set by the daemon itself, without effect here", file=sys.stderr)


def _as_text(shown: dict[str, dict[str, dict[str, Any]]]) -> str:
    return "\n\n".join("\n".join([f"[{name}]", *_lines(fields)]) for name, fields in shown.items())


def _lines(fields: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield one section's fields as TOML, with their sources in a column of comments."""
    settings = [
        f"# {name} is not set" if field["value"] is None else f"{name} = {json.dumps(field['value'])}"
        for name, field in fields.items()
    ]
    width = max(map(len, settings))
    for setting, field in zip(settings, fields.values(), strict=True):
        yield f"{setting:{width}}  # {field['from']}"
