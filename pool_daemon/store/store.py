"""The store as one object, for the packages above."""

from pool_daemon.clock import Clock
from pool_daemon.store.client import Database
from pool_daemon.store.decommissions import Decommissions
from pool_daemon.store.pools import PoolStore
from pool_daemon.store.workloads import WorkloadStore


class Store:
    """The collections of the store on one database.

    `identity` is written into every record as the actor; in a `dry_run` no decommission is written.
    """

    def __init__(self, *, database: Database, clock: Clock, identity: str, dry_run: bool = False) -> None:
        self.pools = PoolStore(database=database)
        self.workloads = WorkloadStore(database=database)
        self.decommissions = Decommissions(database=database, clock=clock, identity=identity, dry_run=dry_run)
