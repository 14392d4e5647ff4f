"""What the database needs before the daemon can work on it: collections of its own, and indexes."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from pymongo.errors import CollectionInvalid, NetworkTimeout, OperationFailure

from pool_daemon.store.client import Collection, Database
from pool_daemon.store.events import EVENTS
from pool_daemon.store.failures import translated
from pool_daemon.store.holds import BRAKE
from pool_daemon.store.intents import INTENTS
from pool_daemon.store.lease import LEASE
from pool_daemon.store.pools import CAPACITY_POOLS
from pool_daemon.store.quarantine import QUARANTINE
from pool_daemon.store.workloads import WORKLOADS

NAMESPACE_EXISTS: Final = 48

OWN_COLLECTIONS: Final = (EVENTS, LEASE, BRAKE, QUARANTINE, INTENTS)

Keys = tuple[tuple[str, int], ...]

INDEXES: Final[Mapping[str, tuple[Keys, ...]]] = {
    CAPACITY_POOLS: ((("customer_tid", 1),), (("empty_at", 1),)),
    # Finds the deployed workloads of a pool without reading those that are long deleted, in the order of their ids.
    # The explorer's own index on the next action, if it should be missing, finds those that are to be deleted.
    WORKLOADS: ((("pool_id", 1), ("next_action", 1), ("_id", 1)), (("next_action", 1),)),
    # Finds the few that were released among many that are held.
    BRAKE: ((("state", 1), ("_id", 1)),),
}


async def create_collections(database: Database) -> None:
    """Create the daemon's own collections: quick, and better done before a transaction would have to."""
    with translated("listing collections"):
        existing = set(await database.motor.list_collection_names())
    for name in OWN_COLLECTIONS:
        if name not in existing:
            with translated(f"creating {name}"):
                await _create(database, name)


async def setup(database: Database) -> int:
    """Create the indexes that are missing, and return how many; one with the same keys under another name counts.

    On a big collection this takes minutes, so nothing waits for it.
    """
    created = 0
    for name, wanted in INDEXES.items():
        with translated(f"creating the indexes of {name}"):
            existing = await database.collection(name).index_information()
            missing = set(wanted) - {tuple(index["key"]) for index in existing.values()}
            for keys in sorted(missing):
                await _build(database.unhurried(name), keys)
                created += 1
    return created


async def _build(collection: Collection, keys: Keys) -> None:
    """Build an index, however long it takes: a server that is asked again goes on with the build it is at.

    With a time limit it would give the build up, and begin anew when asked again.
    """
    while True:
        with suppress(NetworkTimeout):
            await collection.create_index(list(keys))
            return


async def _create(database: Database, name: str) -> None:
    """Create a collection, unless another daemon is faster: before the driver has looked, or after."""
    try:
        await database.motor.create_collection(name)
    except CollectionInvalid:
        return
    except OperationFailure as error:
        if error.code != NAMESPACE_EXISTS:
            raise
