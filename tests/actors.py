"""Who makes the changes that tests make."""

from pool_daemon.store.records import Actor, ActorKind

ME = Actor(ActorKind.DAEMON, "me", "0")
"""A daemon without a lease, before its first pass."""
