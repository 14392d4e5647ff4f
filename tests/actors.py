"""Who makes the changes that tests make, and how much of them at once."""

from pool_daemon.store.cases import Limits
from pool_daemon.store.records import Actor, ActorKind

ME = Actor(ActorKind.DAEMON, "me", "0")
"""A daemon without a lease, before its first pass."""

ROOMY = Limits(workloads=2000, size=16 * 2**20)
"""Limits of a batch that hold everything that tests decommission at once."""
