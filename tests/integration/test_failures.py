"""What a real server answers, and what is told of it."""

from collections.abc import Iterator

import pytest
from actors import ME
from addresses import as_stranger, as_user
from arithmetic_model import Document
from fail_point import fail_point
from pymongo import MongoClient, UpdateOne

from pool_daemon.errors import StoreError, StoreRefusedError, StoreUnavailableError
from pool_daemon.store.client import Database, connect
from pool_daemon.store.error_mapping import translated
from pool_daemon.store.policies import OwnerPolicy, PolicyStore
from pool_daemon.store.sessions import Session

PASSWORD = "correct-horse"  # noqa: S105 - it opens a server that lives as long as these tests
REMEDY = "run deploy/mongodb/create-user.js"


@pytest.fixture
def reader_uri(mongo: MongoClient[Document], mongo_uri: str, database_name: str) -> Iterator[str]:
    """Where a user connects who may read that database and no more."""
    mongo[database_name].command("createUser", "reader", pwd=PASSWORD, roles=["read"])
    yield as_user(mongo_uri, "reader", PASSWORD, database=database_name)
    mongo[database_name].command("dropUser", "reader")


async def refusal(database: Database) -> str:
    """Write in a transaction, as a batch is written; return why that is refused."""

    async def body(session: Session) -> None:
        write = UpdateOne({"_id": 1}, {"$set": {"next_action": 4}}, upsert=True)
        await database.collection("workqueue").bulk_write([write], session=session)

    with pytest.raises(StoreError) as refused:
        await database.transact(body, doing="committing a batch")
    return str(refused.value)


async def test_a_validator_is_named_as_the_cause(
    mongo: MongoClient[Document], mongo_uri: str, database_name: str
) -> None:
    mongo[database_name].create_collection("workqueue", validator={"node_id": {"$exists": True}})
    database = connect(uri=mongo_uri, name=database_name)
    assert await refusal(database) == "committing a batch: Document failed validation"
    database.close()


async def test_what_fails_in_its_commit_is_named_by_what_was_to_be_done(
    mongo: MongoClient[Document], mongo_uri: str, database_name: str
) -> None:
    database = connect(uri=mongo_uri, name=database_name, timeout_seconds=1)
    policy = OwnerPolicy(owner=7, grace={}, budget_seconds=3600, reason="agreed", by="ops", at=1)
    failing = fail_point(mongo, "commitTransaction", mode="alwaysOn", closeConnection=True)
    with failing, pytest.raises(StoreUnavailableError, match=r"^setting the policy of customer 7: "):
        await PolicyStore(database=database).set(policy, actor=ME)
    database.close()


async def test_a_missing_privilege_is_named_without_the_command(reader_uri: str, database_name: str) -> None:
    database = connect(uri=reader_uri, name=database_name)
    assert await refusal(database) == f"committing a batch: not authorized to update workqueue: {REMEDY}"
    refused = f"^reading: not authorized to read user: {REMEDY}$"
    with pytest.raises(StoreRefusedError, match=refused), translated("reading"):
        await database._client.elsewhere.user.find_one()
    database.close()


async def test_a_user_sought_in_the_wrong_place_is_a_question_of_authsource(reader_uri: str) -> None:
    database = connect(uri=reader_uri.partition("&authSource")[0], name="t")
    with pytest.raises(StoreRefusedError, match=r"Authentication failed: is authSource right\?$"):
        await database.ping()
    database.close()


async def test_an_address_without_a_user_is_told_so(mongo_uri: str) -> None:
    database = connect(uri=as_stranger(mongo_uri), name="t")
    assert "MongoDB requires authentication: name a user in database.uri" in await refusal(database)
    database.close()
