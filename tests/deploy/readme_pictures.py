"""Takes the README's pictures of the page of a daemon at work: `python tests/deploy/readme_pictures.py .github`."""

import asyncio
import itertools
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from arithmetic_model import Rates
from browser import Browser, open_browser
from daemon_process import DaemonProcess, running_daemon
from deadline import wait_for_instant
from explorer import CONTAINER, PUBLIC_IP, VIRTUAL_MACHINE, VOLUME, Explorer
from pymongo import MongoClient

from pool_daemon.embedded import EmbeddedMongod

SOON_SECONDS = (3, 4, 5, 6, 7, 8, 9, 10, 12, 34)
LATER_SECONDS = (70, 95, 180, 410, 600, 1500, 2700, 4400, 9000, 20_000, 33_000, 80_000, 90_000, 200_000, 400_000)
KINDS = ([CONTAINER], [CONTAINER, CONTAINER], [VOLUME], [VIRTUAL_MACHINE, PUBLIC_IP], [CONTAINER, VOLUME])
FURTHER_SECONDS = [round(900 + 17_000 * (number / 400) ** 2) for number in range(400)]
"""Many pools, which are seen as a band."""

PICTURE_SECOND = 14.0
"""When the pictures are taken: nine pools have run empty on time, and the next one soon will."""


def stage(explorer: Explorer) -> None:
    """Buy pools that run empty one after the other, some of them hours ago and some days from now."""
    explorer._pool_ids = itertools.count(3001)
    for kinds in KINDS[:2]:
        explorer.buy_expired(*kinds)
    for number, seconds in enumerate((*SOON_SECONDS, *LATER_SECONDS)):
        kinds = KINDS[number % len(KINDS)]
        drained = [sum(kind.rates[resource] for kind in kinds) for resource in range(3)]
        explorer.buy(Rates(*(rate * seconds for rate in drained)), kinds)
    rates = CONTAINER.rates
    explorer.create(
        [explorer.draft(Rates(*(rate * seconds for rate in rates)), [CONTAINER]) for seconds in FURTHER_SECONDS]
    )


def port_of(daemon: DaemonProcess) -> int:
    """Read from the log where the daemon answers."""
    daemon.wait_for_log(lambda record: record["event"] == "http_listening", within_seconds=20, what="the HTTP port")
    return int(next(record["port"] for record in daemon.records if record["event"] == "http_listening"))


def take(browser: Browser, port: int, folder: Path) -> None:
    """Take one picture of the page by day and one by night."""
    for scheme in ("light", "dark"):
        browser.show(width=1180, height=820, scheme=scheme)
        browser.go(f"http://127.0.0.1:{port}/")
        browser.wait_for("document.querySelectorAll('#timeline .dot').length > 10")
        browser.screenshot(folder / f"page-{scheme}.png")


async def main(folder: Path) -> None:
    """BenchDatabase the scene on a MongoDB of its own, and take the pictures when its moment comes."""
    with tempfile.TemporaryDirectory() as data:
        async with EmbeddedMongod(folder=Path(data)) as mongod:
            await asyncio.to_thread(play, mongod.uri, "explorer", folder)


def play(uri: str, name: str, folder: Path) -> None:
    """Run the daemon on the database of that name, and the browser beside it."""
    client: MongoClient[dict[str, Any]] = MongoClient(uri, tz_aware=True)
    with client, open_browser() as browser:
        stage(Explorer(database=client[name]))
        staged_at = time.time()
        with running_daemon(uri=uri, database_name=name, LEASE__IDENTITY="pool-daemon-0") as daemon:
            port = port_of(daemon)
            browser.go(f"http://127.0.0.1:{port}/")
            wait_for_instant(staged_at + PICTURE_SECOND)
            take(browser, port, folder)
        assert browser.console == []


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
