"""Debian's Prometheus on the loopback address, with its data in a folder of the test's."""

import json
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deadline import wait_until
from deploy.files import free_port, tool

START_SECONDS = 30


class PrometheusServer:
    """A running Prometheus; a context manager."""

    def __init__(self, *, config: Path, folder: Path) -> None:
        self._address = f"127.0.0.1:{free_port()}"
        self._log = folder / "prometheus.log"
        self._command = [
            tool("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={self._address}",
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_until(self._is_ready, within_seconds=START_SECONDS, what="a Prometheus that is ready")
        except BaseException:
            self._process.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait()

    def healths(self) -> list[str]:
        """Tell of every target how its last scrape went."""
        return [target["health"] for target in self._ask("/api/v1/targets")["data"]["activeTargets"]]

    def firing(self) -> dict[str, str]:
        """Return the alerts that fire, by name, with their descriptions."""
        alerts = self._ask("/api/v1/alerts")["data"]["alerts"]
        return {
            alert["labels"]["alertname"]: alert["annotations"]["description"]
            for alert in alerts
            if alert["state"] == "firing"
        }

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        try:
            with urllib.request.urlopen(f"http://{self._address}/-/ready", timeout=1):
                return True
        except OSError:
            return False

    def _ask(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://{self._address}{path}", timeout=10) as response:
            answer: dict[str, Any] = json.load(response)
        return answer
