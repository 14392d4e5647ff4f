"""Debian's Alertmanager on the loopback address, with its data in a folder of the test's."""

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deadline import wait_until
from deploy.files import free_port, tool

CONFIG = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"
START_SECONDS = 30


class AlertmanagerServer:
    """A running Alertmanager."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.url = f"http://{address}"

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts that are active."""
        with urllib.request.urlopen(f"http://{self._address}/api/v2/alerts?active=true", timeout=10) as response:
            found: list[dict[str, Any]] = json.load(response)
        return found

    def active(self, name: str) -> list[str]:
        """Return the pools that have an active alert of a name."""
        alerts = [alert["labels"] for alert in self.alerts() if alert["labels"]["alertname"] == name]
        return [labels["pool_id"] for labels in alerts]


@contextmanager
def alertmanager(folder: Path) -> Iterator[AlertmanagerServer]:
    """Run one, alone, that notifies nobody."""
    config = folder / "alertmanager.yml"
    config.write_text(CONFIG, encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    command = [
        tool("prometheus-alertmanager"),
        f"--config.file={config}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    ]
    with (folder / "alertmanager.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def is_ready() -> bool:
        assert process.poll() is None, (folder / "alertmanager.log").read_text(encoding="utf-8")
        try:
            with urllib.request.urlopen(f"http://{address}/-/ready", timeout=1):
                return True
        except OSError:
            return False

    try:
        wait_until(is_ready, within_seconds=START_SECONDS, what="an Alertmanager that is ready")
        yield AlertmanagerServer(address)
    finally:
        process.terminate()
        process.wait()
