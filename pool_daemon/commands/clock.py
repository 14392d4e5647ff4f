"""This machine's clock and the database's, compared."""

import argparse
import asyncio
import json

from pool_daemon.clock import SystemClock
from pool_daemon.commands import add_config_argument
from pool_daemon.commands.connection import connection
from pool_daemon.errors import ExitCode
from pool_daemon.guards.clock_guard import ClockAgreement, Comparison, compare
from pool_daemon.plain_text import date
from pool_daemon.settings import load_settings
from pool_daemon.store.client import ServerClock

EXAMPLES = (
    "pool-daemon clock --config /etc/pool-daemon/config.toml",
    "pool-daemon clock --json | jq .difference_seconds",
)

MEANING = {
    ClockAgreement.AGREE: "they agree",
    ClockAgreement.APART: "apart: the daemon holds until they agree",
    ClockAgreement.UNSURE: "the answer came too slowly to decide whether they agree",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `--config` and `--json`."""
    add_config_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text; instants in unix seconds")


def run(arguments: argparse.Namespace) -> ExitCode:
    """Print both clocks and how far this machine's is ahead; FAILED unless they are known to agree."""
    settings = load_settings(arguments.config)
    bound = settings.clock.max_difference_seconds
    with connection(settings) as database:
        comparison = asyncio.run(_compare(ServerClock(database=database)))
    agreement = comparison.agreement(bound)
    print(_as_json(comparison, agreement, bound) if arguments.json else _as_text(comparison, agreement, bound))
    return ExitCode.OK if agreement is ClockAgreement.AGREE else ExitCode.FAILED


async def _compare(server_clock: ServerClock) -> Comparison:
    """Compare once the connection exists: connecting may take long, and would make the result less accurate."""
    await server_clock.now()
    return await compare(server_clock.now, SystemClock())


def _as_json(comparison: Comparison, agreement: ClockAgreement, bound: float) -> str:
    return json.dumps(
        {
            "local_at": round(comparison.local_at, 3),
            "database_at": comparison.server_at,
            "difference_seconds": round(comparison.difference_seconds, 3),
            "uncertainty_seconds": round(comparison.uncertainty_seconds, 3),
            "max_difference_seconds": bound,
            "verdict": agreement,
        }
    )


def _as_text(comparison: Comparison, agreement: ClockAgreement, bound: float) -> str:
    return (
        f"this machine  {date(comparison.local_at, milliseconds=True)}\n"
        f"database      {date(comparison.server_at, milliseconds=True)}\n"
        f"difference    {comparison.difference_seconds:+.3f} s, give or take {comparison.uncertainty_seconds:.3f} s; "
        f"at most {bound:g} s is allowed: {MEANING[agreement]}"
    )
