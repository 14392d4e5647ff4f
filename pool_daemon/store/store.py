"""The store as one thing: what the floors above are handed."""

from pool_daemon.clock import Clock
from pool_daemon.store.client import Database
from pool_daemon.store.decommissions import Decommissions
from pool_daemon.store.pools import PoolStore
from pool_daemon.store.workloads import WorkloadStore


class Store:
    """The rooms of the store on one database.

    `identity` is written into every record as who did it; `dry_run` keeps the decommissions from being written.
    """

    def __init__(self, *, database: Database, clock: Clock, identity: str, dry_run: bool = False) -> None:
        self.database = database
        self.pools = PoolStore(database=database)
        self.workloads = WorkloadStore(database=database)
        self.decommissions = Decommissions(database=database, clock=clock, identity=identity, dry_run=dry_run)
