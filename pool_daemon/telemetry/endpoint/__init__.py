"""The daemon's HTTP endpoint, on a thread of its own: it answers even while the event loop is stuck."""

from pool_daemon.telemetry.endpoint.routes import Routes
from pool_daemon.telemetry.endpoint.server import Server

__all__ = ["Routes", "Server"]
