"""The set-up of the database: the daemon's own collections, and indexes."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from pymongo.errors import CollectionInvalid, NetworkTimeout, OperationFailure

from pool_daemon.store.client import Collection, Database
from pool_daemon.store.error_mapping import translated
from pool_daemon.store.grace import GRACE
from pool_daemon.store.holds import BRAKE
from pool_daemon.store.lease import LEASE
from pool_daemon.store.notices import NOTICES
from pool_daemon.store.outbox import OUTBOX
from pool_daemon.store.pools import CAPACITY_POOLS
from pool_daemon.store.quarantine import QUARANTINE
from pool_daemon.store.receivers import RECEIVERS
from pool_daemon.store.records import EVENTS
from pool_daemon.store.workloads import WORKLOADS

NAMESPACE_EXISTS: Final = 48

NAME_TAKEN: Final = frozenset({85, 86})
"""IndexOptionsConflict, IndexKeySpecsConflict: another index has the name, or differs only in its options."""

PECULIAR: Final = frozenset({"hidden", "partialFilterExpression", "sparse", "expireAfterSeconds"})
"""Options with which an index does not serve every read, or removes documents."""

OWN_COLLECTIONS: Final = (EVENTS, LEASE, BRAKE, QUARANTINE)

NOTICE_COLLECTIONS: Final = (NOTICES, OUTBOX, RECEIVERS)
"""Those that exist only where owners are told."""

GRACE_COLLECTIONS: Final = (GRACE,)
"""Those that exist only where there is grace; operators write the policies, which the daemon only reads."""

DAY_SECONDS: Final = 86_400

Keys = tuple[tuple[str, int], ...]

AGE: Final[Keys] = (("at", 1),)
"""The index by which the server removes records of a certain age. Records without `at` are older than the envelope, and
stay."""

INDEXES: Final[dict[str, tuple[Keys, ...]]] = {
    # They are built in this order: a first start waits for the one of ends.
    CAPACITY_POOLS: ((("empty_at", 1),), (("customer_tid", 1),)),
    # Finds the deployed workloads of a pool in the order of their ids, without reading those that were deleted long ago
    # or are free: a customer may keep any number of free ones, of any size, for ever. If the explorer's own index on
    # the next action is missing, this one finds those that are to be deleted.
    WORKLOADS: ((("pool_id", 1), ("next_action", 1), ("_id", 1), ("workload_type", 1)), (("next_action", 1),)),
    # Finds the few that were released among many that are held.
    BRAKE: ((("state", 1), ("_id", 1)),),
    # Find the records of a pool, of a workload in it, and of an owner, each in the order of time, so that the last ones
    # are read without the others. Both together cost a storm less than a tenth of the server's processor.
    EVENTS: ((("pool_id", 1), ("_id", 1), ("workload_id", 1)), (("customer_tid", 1), ("_id", 1))),
}

NOTICE_INDEXES: Final[dict[str, tuple[Keys, ...]]] = {
    # Find what is to be delivered next, what has been kept for long enough, and what was told of a pool.
    OUTBOX: (
        (("receiver", 1), ("state", 1), ("next_at", 1)),
        (("expires_at", 1),),
        (("event.data.pools.pool_id", 1), ("created_at", 1)),
    ),
}

GRACE_INDEXES: Final[dict[str, tuple[Keys, ...]]] = {
    # Finds the pools in grace among those whose grace is over.
    GRACE: ((("running", 1), ("_id", 1)),),
}


async def create_collections(database: Database, *, notices: bool = False, grace: bool = False) -> None:
    """Create the daemon's own collections: quick, and cheaper than creating them within a transaction."""
    with translated("listing collections"):
        existing = set(await database.motor.list_collection_names())
    wanted = (*OWN_COLLECTIONS, *(NOTICE_COLLECTIONS if notices else ()), *(GRACE_COLLECTIONS if grace else ()))
    for name in wanted:
        if name not in existing:
            with translated(f"creating {name}"):
                await _create(database, name)


async def has_pools(database: Database) -> bool:
    """Return whether there is a collection of pools; a database without one is probably not the explorer's."""
    with translated("listing collections"):
        found = await database.motor.list_collection_names(filter={"name": CAPACITY_POOLS}, authorizedCollections=True)
    return bool(found)


class Index(NamedTuple):
    """An index that the daemon needs.

    If it expires, `keep_days` is after how many days the server removes a document; 0 means that it must remove none.
    """

    collection: str
    keys: Keys
    keep_days: int | None = None

    @property
    def label(self) -> str:
        """The index's collection and fields, as shown to an operator."""
        label = f"{self.collection}: {', '.join(name for name, _ in self.keys)}"
        if self.keep_days is None:
            return label
        return f"{label}, kept for {f'{self.keep_days} days' if self.keep_days else 'ever'}"


async def missing_indexes(
    database: Database, *, notices: bool = False, grace: bool = False, keep_days: int | None = None
) -> list[Index]:
    """List the indexes that are missing; one with the same keys under another name is not.

    A hidden, partial, sparse or expiring index does not count, nor one whose collation is not that of its collection:
    reads may not use it. One that removes records of another age than `keep_days` is missing, too; 0 is for ever, and
    None leaves the age of records as it is. Raises StoreUnavailableError or StoreRefusedError.
    """
    missing: list[Index] = []
    for name, wanted in _wanted_indexes(notices=notices, grace=grace).items():
        with translated(f"listing the indexes of {name}"):
            existing = (await database.collection(name).index_information()).values()
            collation = (
                await _default_collation(database, name) if any("collation" in each for each in existing) else None
            )
        there = {tuple(each["key"]) for each in existing if _serves(each) and each.get("collation") == collation}
        missing += [Index(name, keys) for keys in wanted if keys not in there]
    if keep_days is not None:
        _, expires_seconds = await _age_index(database)
        if expires_seconds != (keep_days * DAY_SECONDS or None):
            missing.append(Index(EVENTS, AGE, keep_days))
    return missing


def _wanted_indexes(*, notices: bool, grace: bool) -> dict[str, tuple[Keys, ...]]:
    return INDEXES | (NOTICE_INDEXES if notices else {}) | (GRACE_INDEXES if grace else {})


async def build_index(database: Database, index: Index) -> None:
    """Build an index, however long it takes: minutes on a big collection.

    If its name is taken, the daemon chooses another name. Raises the server's error if it cannot be built.
    """
    if index.keep_days is not None:
        await _set_age(database, index.keep_days)
        return
    collection, keys = database.without_time_limit(index.collection), list(index.keys)
    with translated(f"creating the index on {index.label}"):
        try:
            await _build(collection, keys)
        except OperationFailure as error:
            if error.code not in NAME_TAKEN:
                raise
            await _build(collection, keys, name=f"pool-daemon_{'_'.join(field for field, _ in keys)}")


async def setup(database: Database, *, keep_days: int | None = None) -> int:
    """Create the indexes that are missing, and return how many.

    Without `keep_days`, for how long records are kept stays as it is; 0 keeps them for ever.
    """
    missing = await missing_indexes(database, keep_days=keep_days)
    for index in missing:
        await build_index(database, index)
    return len(missing)


async def _age_index(database: Database) -> tuple[str | None, int | None]:
    """Return the name of the index on the records' instants, and after how many seconds it removes one; None if not."""
    with translated(f"listing the indexes of {EVENTS}"):
        existing = await database.collection(EVENTS).index_information()
    found = [(name, index.get("expireAfterSeconds")) for name, index in existing.items() if tuple(index["key"]) == AGE]
    return found[0] if found else (None, None)


async def _set_age(database: Database, keep_days: int) -> None:
    """Have the server remove records that are older, or none at all; the age of an index that expires is changed."""
    name, expires_seconds = await _age_index(database)
    wanted_seconds = keep_days * DAY_SECONDS
    with translated(f"changing for how long {EVENTS} are kept"):
        if name is not None and keep_days and expires_seconds is not None:
            change = {"keyPattern": dict(AGE), "expireAfterSeconds": wanted_seconds}
            await database.motor.command({"collMod": EVENTS, "index": change})
            return
        if name is not None:
            await database.collection(EVENTS).drop_index(name)
        if keep_days:
            await _build(database.without_time_limit(EVENTS), list(AGE), expireAfterSeconds=wanted_seconds)


async def _default_collation(database: Database, name: str) -> Any:
    """Return the collation that a collection was created with; its indexes have it, too, unless they name another."""
    return (await database.collection(name).options()).get("collation")


def _serves(index: Mapping[str, Any]) -> bool:
    return not any(index.get(option) for option in PECULIAR) and index.get("expireAfterSeconds") is None


async def _build(collection: Collection, keys: list[tuple[str, int]], **options: Any) -> None:
    """Build an index; if the command is repeated, the server continues the build in progress.

    With a time limit the server would abort the build, and begin anew when asked again.
    """
    while True:
        with suppress(NetworkTimeout):
            await collection.create_index(keys, **options)
            return


async def _create(database: Database, name: str) -> None:
    """Create a collection, unless another daemon creates it first: before the driver has looked, or after."""
    try:
        await database.motor.create_collection(name)
    except CollectionInvalid:
        return
    except OperationFailure as error:
        if error.code != NAMESPACE_EXISTS:
            raise
