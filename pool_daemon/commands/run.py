"""The main command: run the daemon until it is stopped."""

import argparse
import os
from pathlib import Path

from pool_daemon.commands import add_config_argument
from pool_daemon.errors import ExitCode
from pool_daemon.events import SECRET_READABLE_BY_ALL, SETTING_OVERRIDDEN
from pool_daemon.process import serve
from pool_daemon.settings import Settings, Sources
from pool_daemon.telemetry.logs import tell

EXAMPLES = (
    "pool-daemon run --config /etc/pool-daemon/config.toml",
    "POOL_DAEMON_DATABASE__URI='mongodb://db-1/?replicaSet=explorer' pool-daemon run",
    "pool-daemon run --once --dry-run",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `--config`, `--once` and `--dry-run`."""
    add_config_argument(parser)
    parser.add_argument("--once", action="store_true", help="make one pass over everything due, then exit")
    parser.add_argument("--dry-run", action="store_true", help="do everything but write, and log what would be done")


def run(arguments: argparse.Namespace) -> ExitCode:
    """Run the daemon, or one pass of it."""
    return serve(lambda: load(arguments.config), once=arguments.once, dry_run=arguments.dry_run)


def load(config: Path | None) -> Settings:
    """Read the settings, and report those without effect, such as a unit's name for the lease."""
    sources = Sources(config=config, environ=os.environ)
    settings = sources.load()
    for overridden in sources.overridden:
        tell(SETTING_OVERRIDDEN, **overridden._asdict())
    if exposed := sources.exposed():
        tell(SECRET_READABLE_BY_ALL, file=str(exposed), remedy="chmod o-r")
    return settings
