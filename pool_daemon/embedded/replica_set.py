"""A lone mongod's way to being primary of a replica set of one, which gives it transactions and change streams."""

from typing import Any

from pymongo import AsyncMongoClient
from pymongo.errors import AutoReconnect, OperationFailure

from pool_daemon.errors import EmbeddedError

ALREADY_INITIALIZED = 23
STILL_LOADING = frozenset({93, 94})
"""InvalidReplicaSetConfig and NotYetInitialized: the answers of a server that has yet to read its configuration."""


async def become_primary(client: AsyncMongoClient[dict[str, Any]], *, host: str, replica_set: str) -> bool:
    """Take the next step towards being the writable primary; return whether `host` is that already.

    `client` is a direct connection to `host`. A new folder is initiated. A folder that last ran on another
    port still names that port as its only member: it is reconfigured by force, or it would wait for
    itself for ever. A server that does not answer is not there yet. Raises EmbeddedError if it refuses.
    """
    try:
        hello = await client.admin.command("hello")
        if "setName" not in hello:
            await _join(client, host=host, replica_set=replica_set)
    except AutoReconnect:
        return False
    except OperationFailure as error:
        if error.code in STILL_LOADING:
            return False
        raise EmbeddedError(f"the mongod on {host} cannot become a replica set: {error}") from error
    return bool(hello.get("isWritablePrimary"))


async def _join(client: AsyncMongoClient[dict[str, Any]], *, host: str, replica_set: str) -> None:
    members = [{"_id": 0, "host": host}]
    try:
        await client.admin.command("replSetInitiate", {"_id": replica_set, "members": members})
    except OperationFailure as error:
        if error.code != ALREADY_INITIALIZED:
            raise
        await _move(client, host=host, replica_set=replica_set)


async def _move(client: AsyncMongoClient[dict[str, Any]], *, host: str, replica_set: str) -> None:
    config = (await client.admin.command("replSetGetConfig"))["config"]
    # Another set's members elsewhere would be cut off by force.
    if config["_id"] != replica_set or len(config["members"]) != 1:
        raise EmbeddedError(
            f"its folder belongs to the replica set {config['_id']} of {len(config['members'])}: choose another folder"
        )
    config["members"][0]["host"] = host
    config["version"] += 1
    await client.admin.command("replSetReconfig", config, force=True)
