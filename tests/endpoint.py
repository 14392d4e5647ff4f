"""What a running daemon's HTTP address answers, asked as Prometheus and Kubernetes do."""

import json
from http.client import HTTPConnection, HTTPException
from typing import Any, Self

from daemon_process import DaemonProcess
from deadline import wait_until
from prometheus_client.parser import text_string_to_metric_families as parse

START_SECONDS = 20


class Endpoint:
    """The HTTP address that a daemon's log names."""

    def __init__(self, daemon: DaemonProcess) -> None:
        daemon.wait_for_log(is_listening, within_seconds=START_SECONDS, what="the HTTP address")
        self.port = next(record["port"] for record in daemon.records if is_listening(record))

    @classmethod
    def at(cls, port: int) -> Self:
        """Return the endpoint at a port that the daemon was told to take."""
        endpoint = cls.__new__(cls)
        endpoint.port = port
        return endpoint

    def ask(self, path: str) -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except (OSError, HTTPException) as error:
            return 0, str(error)
        finally:
            connection.close()

    def wait_for(self, path: str, status: int, *, within_seconds: float = START_SECONDS) -> None:
        wait_until(lambda: self.ask(path)[0] == status, within_seconds=within_seconds, what=f"{status} at {path}")

    def status_json(self) -> dict[str, Any]:
        return dict(json.loads(self.ask("/statusz")[1]))

    def sample(self, name: str, **labels: str) -> float | None:
        for family in parse(self.ask("/metrics")[1]):
            for sample in family.samples:
                if sample.name == f"pool_daemon_{name}" and sample.labels == labels:
                    return sample.value
        return None


def is_listening(record: dict[str, Any]) -> bool:
    return record.get("event") == "http_listening"
