"""The versions of pool-daemon and of what it runs on."""

import argparse
import json
import platform
from importlib import metadata

from pool_daemon import __version__
from pool_daemon.errors import ExitCode

EXAMPLES = (
    "pool-daemon version",
    "pool-daemon version --json",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `--json`."""
    parser.add_argument("--json", action="store_true", help="JSON, with the versions of Python and the MongoDB drivers")


def run(arguments: argparse.Namespace) -> ExitCode:
    """Print the version."""
    if arguments.json:
        drivers = {name: metadata.version(name) for name in ("motor", "pymongo")}
        print(json.dumps({"pool-daemon": __version__, "python": platform.python_version(), **drivers}))
    else:
        print(f"pool-daemon {__version__}")
    return ExitCode.OK
