"""A MongoDB of one's own, for trying the daemon out and for its tests: a real mongod on loopback."""

from pool_daemon.embedded.binary import find_mongod
from pool_daemon.embedded.server import EmbeddedMongod

__all__ = ["EmbeddedMongod", "find_mongod"]
