"""What the database needs before the daemon can work on it: collections of its own, and indexes."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from pymongo.errors import CollectionInvalid, NetworkTimeout, OperationFailure

from pool_daemon.store.client import Collection, Database
from pool_daemon.store.events import EVENTS
from pool_daemon.store.failures import translated
from pool_daemon.store.holds import BRAKE
from pool_daemon.store.lease import LEASE
from pool_daemon.store.pools import CAPACITY_POOLS
from pool_daemon.store.quarantine import QUARANTINE
from pool_daemon.store.workloads import WORKLOADS

NAMESPACE_EXISTS: Final = 48

NAME_TAKEN: Final = frozenset({85, 86})
"""IndexOptionsConflict, IndexKeySpecsConflict: another index has the name, or differs only in its options."""

PECULIAR: Final = frozenset({"hidden", "partialFilterExpression", "sparse", "collation", "expireAfterSeconds"})
"""Options of an index that does not serve every read, or that removes documents."""

OWN_COLLECTIONS: Final = (EVENTS, LEASE, BRAKE, QUARANTINE)

Keys = tuple[tuple[str, int], ...]

INDEXES: Final[Mapping[str, tuple[Keys, ...]]] = {
    CAPACITY_POOLS: ((("customer_tid", 1),), (("empty_at", 1),)),
    # Finds the deployed workloads of a pool without reading those that are long deleted or free, in the order of
    # their ids: a customer may keep any number of free ones, of any size, for ever.
    # The explorer's own index on the next action, if it should be missing, finds those that are to be deleted.
    WORKLOADS: ((("pool_id", 1), ("next_action", 1), ("_id", 1), ("workload_type", 1)), (("next_action", 1),)),
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


class Index(NamedTuple):
    """An index that the daemon needs."""

    collection: str
    keys: Keys

    @property
    def label(self) -> str:
        """Its collection and its fields, as an operator reads them."""
        return f"{self.collection}: {', '.join(name for name, _ in self.keys)}"


async def missing_indexes(database: Database) -> list[Index]:
    """List the indexes that are missing; one with the same keys under another name counts.

    A hidden, partial, sparse or expiring one does not count, nor one with a collation: reads may not use it.
    Raises StoreUnavailableError or StoreRefusedError.
    """
    missing: list[Index] = []
    for name, wanted in INDEXES.items():
        with translated(f"listing the indexes of {name}"):
            existing = await database.collection(name).index_information()
        there = {tuple(index["key"]) for index in existing.values() if _serves(index)}
        missing += [Index(name, keys) for keys in wanted if keys not in there]
    return missing


async def build_index(database: Database, index: Index) -> None:
    """Build an index, however long it takes: on a big collection minutes.

    Where its name is taken it gets one of the daemon's own. Raises what the server says if it cannot be built.
    """
    collection, keys = database.unhurried(index.collection), list(index.keys)
    with translated(f"creating the index on {index.label}"):
        try:
            await _build(collection, keys)
        except OperationFailure as error:
            if error.code not in NAME_TAKEN:
                raise
            await _build(collection, keys, name=f"pool_daemon_{'_'.join(field for field, _ in keys)}")


async def setup(database: Database) -> int:
    """Create the indexes that are missing, and return how many."""
    missing = await missing_indexes(database)
    for index in missing:
        await build_index(database, index)
    return len(missing)


def _serves(index: Mapping[str, Any]) -> bool:
    return not any(index.get(option) for option in PECULIAR) and index.get("expireAfterSeconds") is None


async def _build(collection: Collection, keys: list[tuple[str, int]], **options: Any) -> None:
    """Build an index; a server that is asked again goes on with the build it is at.

    With a time limit it would give the build up, and begin anew when asked again.
    """
    while True:
        with suppress(NetworkTimeout):
            await collection.create_index(keys, **options)
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
