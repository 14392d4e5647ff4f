"""The daemon's HTTP endpoint: on a thread of its own, so that it answers while the loop stands still."""

from pool_daemon.telemetry.endpoint.routes import Routes
from pool_daemon.telemetry.endpoint.server import Server

__all__ = ["Routes", "Server"]
