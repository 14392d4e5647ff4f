"""The embedded MongoDB, for trying the daemon out and for its tests: a real mongod on loopback."""

from pool_daemon.embedded.folder import address_of_running, default_folder
from pool_daemon.embedded.process import find_mongod
from pool_daemon.embedded.server import EmbeddedMongod

__all__ = ["EmbeddedMongod", "address_of_running", "default_folder", "find_mongod"]
