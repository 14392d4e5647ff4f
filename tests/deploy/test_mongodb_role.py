"""The role of deploy/mongodb: enough for all that the daemon does, and for nothing else."""

import asyncio
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio
from addresses import as_user
from arithmetic_model import Document, Rates
from bson import Int64, json_util
from daemon_process import DaemonProcess, running_daemon
from deadline import wait_until
from deploy.files import PROJECT
from deploy.guarded_mongod import NAME, PASSWORD, administered, daemons_uri, script_commands
from explorer import CONTAINER, FREE, PLENTY, VOLUME, Explorer
from grace_scene import in_grace
from ledger import DELETE, Ledger
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import OperationFailure
from reservations_command import add_users, file_of, saved, signed

from pool_daemon.embedded import EmbeddedMongod
from pool_daemon.errors import ExitCode
from pool_daemon.harness import environment
from pool_daemon.store.client import connect
from pool_daemon.store.event_history import EventFilter
from pool_daemon.store.event_stream import EventStream
from pool_daemon.store.quarantine import Quarantined, QuarantineStore
from pool_daemon.store.setup import (
    GRACE_COLLECTIONS,
    GRACE_INDEXES,
    INDEXES,
    NOTICE_COLLECTIONS,
    NOTICE_INDEXES,
    OWN_COLLECTIONS,
    missing_indexes,
)

UNAUTHORIZED = 13
NO_SUCH_TRANSACTION = 251
NEXT_PASSWORD = "battery-staple"  # noqa: S105 - as short-lived as the first

MAY = {
    "capacity-pools": {"update"},
    "workload": {"update"},
    "workqueue": {"insert", "update", "create"},
    "pool-daemon-brake": {"insert", "update", "delete", "create"},
    "pool-daemon-events": {"insert", "create"},
    "pool-daemon-grace": {"insert", "update", "delete", "create"},
    "pool-daemon-lease": {"insert", "update", "create"},
    "pool-daemon-notices": {"insert", "update", "delete", "create"},
    "pool-daemon-outbox": {"insert", "update", "delete", "create"},
    "pool-daemon-quarantine": {"insert", "update", "delete", "create"},
    "pool-daemon-receivers": {"insert", "update", "delete", "create"},
}
"""What the role permits, in commands; whoever may insert may create."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedMongod]:
    async with EmbeddedMongod(folder=tmp_path_factory.mktemp("guarded")) as server:
        yield server


@pytest.fixture(scope="module")
def admin(guarded: EmbeddedMongod) -> Iterator[MongoClient[Document]]:
    with administered(guarded) as admin:
        yield admin


@pytest.fixture
def uri(guarded: EmbeddedMongod, admin: MongoClient[Document]) -> str:
    """Where the daemon finds that server, once its user is there."""
    del admin
    return daemons_uri(guarded)


@pytest.fixture
def explorer(admin: MongoClient[Document]) -> Iterator[Explorer]:
    """Write to the only database that the role opens; nothing is in there before but the indexes of the script."""
    for database, command in script_commands("--existing"):
        admin[database].command(command)
    yield Explorer(database=admin[NAME])
    admin.drop_database(NAME)


@pytest.fixture
def allowed(uri: str) -> Iterator[Database[Document]]:
    """Be the daemon's user."""
    with MongoClient[Document](uri) as client:
        yield client[NAME]


def test_the_role_is_enough_for_a_daemon_at_work(uri: str, admin: MongoClient[Document], explorer: Explorer) -> None:
    ledger = Ledger(client=admin, explorer=explorer)
    expired = explorer.buy_expired(CONTAINER, VOLUME, *FREE)
    lost_order = explorer.buy_expired(CONTAINER, next_action=DELETE)
    quick = {"RECONCILE__INTERVAL_SECONDS": "0.2", "RECONCILE__CONFIRM_SECONDS": "0.2", "HTTP__PORT": "0"}
    with running_daemon(uri=uri, database_name=NAME, **quick) as daemon:
        ledger.wait_for_decommissions(expired.workload_ids[:2], within_seconds=15)
        shortened = explorer.buy(Rates(cu=PLENTY), [CONTAINER])
        explorer.rewrite(shortened.pool_id, _run_out)
        ledger.wait_for_decommissions(shortened.workload_ids, within_seconds=5)
        wait_until(
            lambda: explorer.orders.find_one({"_id": lost_order.workload_ids[0]}),
            within_seconds=10,
            what="an order that is restored",
        )

    assert {"stream_opened", "lease_acquired"} <= {record["event"] for record in daemon.records}
    assert daemon.complaints() == []
    assert {event["workload_id"] for event in explorer.events.find({"kind": "decommissioned"})} == {
        *expired.workload_ids[:2],
        *shortened.workload_ids,
    }


@pytest.fixture
def without_streams(admin: MongoClient[Document]) -> Iterator[str]:
    """Make a user who has every right of the role but that to a change stream; return the name, which is the password.

    The role below may be granted the right, and loses it again.
    """
    privileges = [*admin[NAME].command("rolesInfo", "pool-daemon", showPrivileges=True)["roles"][0]["privileges"]]
    for privilege in privileges:
        privilege["actions"] = [action for action in privilege["actions"] if action != "changeStream"]
    admin[NAME].command("createRole", "blind", privileges=privileges, roles=[])
    admin[NAME].command("createUser", "blind", pwd="blind", roles=["blind"])  # noqa: S106 - as short-lived
    yield "blind"
    admin[NAME].command("dropUser", "blind")
    admin[NAME].command("dropRole", "blind")


def test_without_the_right_to_a_change_stream_the_start_is_refused_with_the_remedy(
    guarded: EmbeddedMongod, without_streams: str
) -> None:
    uri = as_user(guarded.uri, without_streams, without_streams, database=NAME)
    with DaemonProcess(uri=uri, database_name=NAME, HTTP__PORT="0") as daemon:
        daemon.wait_for_exit(code=ExitCode.NOT_ALLOWED)
    assert "create-user.js" in "\n".join(daemon.log_lines())


def test_the_right_to_a_change_stream_lost_under_a_running_daemon_is_an_outage_until_it_is_back(
    guarded: EmbeddedMongod, admin: MongoClient[Document], explorer: Explorer, without_streams: str
) -> None:
    everywhere = {"db": NAME, "collection": ""}
    grant = [{"resource": everywhere, "actions": ["changeStream"]}]
    admin[NAME].command("grantPrivilegesToRole", without_streams, privileges=grant)
    uri = as_user(guarded.uri, without_streams, without_streams, database=NAME)
    with running_daemon(uri=uri, database_name=NAME, HTTP__PORT="0") as daemon:
        daemon.wait_for_log(lambda record: record["event"] == "stream_opened", within_seconds=15, what="the stream")
        admin[NAME].command("revokePrivilegesFromRole", without_streams, privileges=grant)
        daemon.wait_for_log(lambda record: record.get("cause") == "refused", within_seconds=15, what="the loss")
        wait_until(lambda: "change stream has been closed" in _readiness(daemon), within_seconds=25, what="not ready")
        admin[NAME].command("grantPrivilegesToRole", without_streams, privileges=grant)
        wait_until(lambda: len(daemon.said("stream_opened")) > 1, within_seconds=20, what="the stream to be back")
        overdue = explorer.buy_expired(CONTAINER)
        explorer.wait_until_gone(overdue.workload_ids, within_seconds=5)
        wait_until(lambda: "- " not in _readiness(daemon), within_seconds=5, what="ready")


def test_the_role_is_enough_for_the_brake_and_the_word_that_releases_it(uri: str, explorer: Explorer) -> None:
    pool = explorer.buy_expired(CONTAINER)
    careful = {"BRAKE__MIN_POOLS": "0", "BRAKE__MAX_SHARE": "0", "HTTP__PORT": "0"}
    with running_daemon(uri=uri, database_name=NAME, **careful) as daemon:
        holds = explorer.database["pool-daemon-brake"]
        wait_until(lambda: holds.find_one({"_id": pool.pool_id}), within_seconds=15, what="a pool that is held")
        assert explorer.next_actions(pool.workload_ids) == [3]

        _command("brake", "release", "--all", "--yes", uri=uri)

        explorer.wait_until_gone(pool.workload_ids, within_seconds=10)
    assert [record for record in daemon.complaints() if "not authorized" in json.dumps(record)] == []


def test_the_password_can_be_changed_under_a_daemon_at_work(
    uri: str, admin: MongoClient[Document], explorer: Explorer
) -> None:
    with running_daemon(uri=uri, database_name=NAME, HTTP__PORT="0") as daemon:
        explorer.wait_until_gone(explorer.buy_expired(CONTAINER).workload_ids, within_seconds=15)
        admin[NAME].command("updateUser", "pool-daemon", pwd=NEXT_PASSWORD)
        try:
            explorer.wait_until_gone(explorer.buy_expired(CONTAINER).workload_ids, within_seconds=5)
            renewed = uri.replace(f":{PASSWORD}@", f":{NEXT_PASSWORD}@")
            _command("pools", "list", uri=renewed)
        finally:
            admin[NAME].command("updateUser", "pool-daemon", pwd=PASSWORD)

    assert daemon.complaints() == []


def test_a_daemon_may_end_what_another_of_the_same_user_has_locked(uri: str, explorer: Explorer) -> None:
    explorer.workloads.insert_one({"_id": 1, "next_action": 3})
    with (
        MongoClient[Document](uri) as frozen,
        MongoClient[Document](uri) as successor,
        frozen.start_session() as session,
    ):
        session.start_transaction()
        frozen[NAME]["workload"].update_one({"_id": 1}, {"$set": {"next_action": 4}}, session=session)

        successor.admin.command("killSessions", [session.session_id])

        with pytest.raises(OperationFailure) as refusal:
            session.commit_transaction()
    assert refusal.value.code == NO_SUCH_TRANSACTION
    assert explorer.next_actions([1]) == [3]


def test_the_role_is_enough_for_the_quarantine(uri: str, explorer: Explorer) -> None:
    poisoned = Quarantined(pool_id=7, reason="x", tries=5, first_failed_at=0, next_try_at=2**31, by="me")

    async def save() -> None:
        database = connect(uri=uri, name=NAME)
        await QuarantineStore(database=database).save(poisoned)
        database.close()

    asyncio.run(save())
    assert explorer.database["pool-daemon-quarantine"].count_documents({"_id": 7}) == 1
    _command("quarantine", "release", "7", uri=uri)
    assert explorer.database["pool-daemon-quarantine"].count_documents({}) == 0


def test_the_role_is_enough_for_the_commands_that_show_pools(uri: str, explorer: Explorer) -> None:
    pool = explorer.buy_expired(CONTAINER)
    for words in (["list", "--overdue"], ["list", "--sort", "owner"], ["next"], ["show", str(pool.pool_id)]):
        _command("pools", *words, uri=uri)


def test_the_role_is_enough_for_an_explanation(uri: str, explorer: Explorer) -> None:
    pool = explorer.buy(Rates(cu=PLENTY), [CONTAINER])
    _command("explain", "pool", str(pool.pool_id), uri=uri)
    _command("explain", "workload", str(pool.workload_ids[0]), uri=uri)


def test_the_role_is_enough_for_the_commands_that_show_events_and_orders(uri: str) -> None:
    _command("orders", "list", "--older-than", "1h", uri=uri)
    _command("events", "list", "--pool", "17", uri=uri)
    _command("events", "export", "--since", "1h", uri=uri)


@pytest.mark.parametrize("collection", [*MAY, "capacity-reservations", "counters", "user", "anything"])
def test_the_role_permits_no_other_write(collection: str, allowed: Database[Document], explorer: Explorer) -> None:
    explorer.database[collection].insert_one({"_id": "somebody's"})

    permitted = {name for name, command in _writes(collection).items() if _is_permitted(allowed, command)}

    assert permitted == MAY.get(collection, set())
    assert explorer.database[collection].count_documents({"_id": "somebody's"}) == 1


@pytest.fixture
def operators_uri(guarded: EmbeddedMongod, admin: MongoClient[Document]) -> Iterator[str]:
    """Where an operator finds that server, with a user of the role that the script has made for operators."""
    admin[NAME].command("createUser", "ann", pwd=PASSWORD, roles=["pool-daemon-operator"])
    yield as_user(guarded.uri, "ann", PASSWORD, database=NAME)
    admin[NAME].command("dropUser", "ann")


def test_an_operator_may_follow_events(operators_uri: str, explorer: Explorer) -> None:
    explorer.events.insert_one({"kind": "held", "pool_id": Int64(1)})

    async def first_two() -> list[str]:
        database = connect(uri=operators_uri, name=NAME)
        stream = EventStream(database=database, on_wait=lambda error: pytest.fail(str(error)))
        async with aclosing(stream.follow(EventFilter(), limit=1)) as events:
            found = [await anext(events)]
            explorer.events.insert_one({"kind": "released", "pool_id": Int64(1)})
            found.append(await anext(events))
        database.close()
        return [event.kind for event in found]

    assert asyncio.run(first_two()) == ["held", "released"]


def test_the_role_of_operators_is_enough_for_what_they_change_and_permits_no_other_write(
    operators_uri: str, explorer: Explorer, tmp_path: Path
) -> None:
    may = {
        "capacity-pools": {"insert", "update", "create"},
        "capacity-reservations": {"insert", "create"},
        "counters": {"insert", "update", "create"},
        "pool-daemon-applied": {"insert", "create"},
        "pool-daemon-brake": {"update"},
        "pool-daemon-events": {"insert", "create"},
        "pool-daemon-grace": {"update"},
        "pool-daemon-outbox": {"update"},
        "pool-daemon-policies": {"insert", "update", "delete", "create"},
        "pool-daemon-quarantine": {"delete"},
        "pool-daemon-receivers": {"delete"},
        "pool-daemon-submitted": {"insert", "create"},
        "workload": {"update"},
        "workqueue": {"insert", "update", "create"},
    }
    explorer.database["pool-daemon-brake"].insert_one({"_id": Int64(1), "state": "held", "empty_at": Int64(1)})
    explorer.database["pool-daemon-quarantine"].insert_one({"_id": Int64(1)})
    add_users(explorer.database)
    pool = explorer.buy(Rates(PLENTY, PLENTY), [CONTAINER])
    unpaid = explorer.buy(Rates(), [CONTAINER], next_action=2)
    explorer.database["capacity-reservations"].insert_one(saved(17_000, pool_id=unpaid.pool_id))
    late = explorer.buy_expired(VOLUME)
    in_grace(explorer, late, for_seconds=60)
    for words in (
        ["pools", "create", "--owner", "7", "--node", "a", "--cu", "1x1h"],
        ["pools", "top-up", str(pool.pool_id), "--cu", "1x1h"],
        ["pools", "nodes", str(pool.pool_id), "--add", "b"],
        ["pools", "end", str(pool.pool_id), "--yes"],
        ["reservations", "submit", file_of(tmp_path, signed())],
        ["reservations", "verify", file_of(tmp_path, signed())],
        ["reservations", "list", "--unapplied"],
        ["reservations", "apply", "17000", "--reason", "a ticket"],
        ["reservations", "show", "17000"],
        ["explain", "pool", str(unpaid.pool_id)],
        ["events", "list", "--owner", "7"],
        ["orders", "list"],
        ["brake", "release", "1"],
        ["quarantine", "release", "1"],
        ["policy", "set", "7", "--volume", "7d", "--reason", "a contract"],
        ["policy", "list"],
        ["policy", "unset", "7"],
        ["grace", "list"],
        ["grace", "extend", str(late.pool_id), "--by", "2d", "--reason", "a ticket"],
        ["grace", "end", str(late.pool_id), "--yes", "--reason", "a ticket"],
    ):
        _command(*words, uri=operators_uri)
    with MongoClient[Document](operators_uri) as client:
        for collection in (*MAY, *may, "capacity-reservations", "user", "anything"):
            writes = _writes(collection).items()
            permitted = {name for name, command in writes if _is_permitted(client[NAME], command)}
            assert permitted == may.get(collection, set()), collection


def test_no_operator_adds_workloads_beside_an_explorer_but_each_may_ask_what_would_be(
    operators_uri: str, explorer: Explorer
) -> None:
    pool = explorer.buy(Rates(PLENTY, PLENTY), [CONTAINER])
    before = explorer.bytes_of(explorer.pools, pool.pool_id)
    workload = "container:cpu=2,memory=4096"
    _command("pools", "what-if", str(pool.pool_id), "--add", workload, "--lasts", "120s", uri=operators_uri)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        _command(*("workloads", "add", "--pool", str(pool.pool_id), workload, "--although-explorer"), uri=operators_uri)
    assert refused.value.returncode == ExitCode.NOT_ALLOWED
    assert explorer.bytes_of(explorer.pools, pool.pool_id) == before
    assert explorer.workloads.count_documents({}) == 1


@pytest.mark.parametrize("name", ["admin", "config", "local", "elsewhere"])
def test_the_role_ends_with_its_database(name: str, allowed: Database[Document]) -> None:
    elsewhere = allowed.client[name]

    for command in ({"find": "anything"}, *_writes("anything").values()):
        assert not _is_permitted(elsewhere, command)


def test_what_reads_cannot_be_made_to_write(allowed: Database[Document], explorer: Explorer) -> None:
    explorer.workloads.insert_one({"_id": 1})
    explorer.orders.insert_one({"_id": "somebody's"})

    for into in ("workqueue", "workload", "capacity-pools", "user", "anything"):
        assert not _is_permitted(allowed, {"aggregate": "workload", "pipeline": [{"$out": into}], "cursor": {}})
    assert explorer.orders.count_documents({"_id": "somebody's"}) == 1


def test_no_index_can_be_made_that_empties_a_collection(allowed: Database[Document], explorer: Explorer) -> None:
    explorer.workloads.insert_one({"_id": 1})
    expiring = {"key": {"t": 1}, "name": "t", "expireAfterSeconds": 0}

    for name in (*MAY, "anything"):
        assert not _is_permitted(allowed, {"createIndexes": name, "indexes": [expiring]})


def test_the_script_makes_the_indexes_that_the_daemon_looks_for(explorer: Explorer) -> None:
    for name, wanted in (INDEXES | NOTICE_INDEXES | GRACE_INDEXES).items():
        existing = [tuple(index["key"]) for index in explorer.database[name].index_information().values()]
        assert set(wanted) <= set(existing)


def test_the_role_knows_each_collection_of_the_daemons_own() -> None:
    assert {*OWN_COLLECTIONS, *NOTICE_COLLECTIONS, *GRACE_COLLECTIONS} == {
        name for name in MAY if name.startswith("pool-daemon-")
    }


def test_the_script_builds_no_index_twice_and_takes_none_that_serves_only_some_queries(
    admin: MongoClient[Document], explorer: Explorer
) -> None:
    admin.drop_database(NAME)
    explorer.pools.create_index("customer_tid", name="of-another-name", hidden=True)
    explorer.pools.create_index("empty_at", sparse=True)
    explorer.workloads.create_index("next_action", name="as-it-should-be")
    before = {name: list(explorer.database[name].list_indexes()) for name in ("capacity-pools", "workload")}

    for database, command in script_commands("--existing", indexes=json.loads(json_util.dumps(before))):
        admin[database].command(command)

    pools, workloads = explorer.pools.index_information(), explorer.workloads.index_information()
    assert set(pools) == {"_id_", "of-another-name", "empty_at_1", "pool-daemon_empty_at_1"}
    assert not pools["of-another-name"].get("hidden")
    assert "sparse" not in pools["pool-daemon_empty_at_1"]
    assert set(workloads) == {"_id_", "as-it-should-be", "pool_id_1_next_action_1__id_1_workload_type_1"}


def test_the_script_decides_for_how_long_records_are_kept_and_the_daemon_looks_for_the_same(
    admin: MongoClient[Document], explorer: Explorer, uri: str
) -> None:
    def run_script(keep_days: str | None) -> int | None:
        there = {"pool-daemon-events": json.loads(json_util.dumps(list(explorer.events.list_indexes())))}
        for database, command in script_commands("--existing", indexes=there, keep_days=keep_days):
            if "pool-daemon-events" in command.values():
                admin[database].command(command)
        expires = [index["expireAfterSeconds"] for index in explorer.events.list_indexes() if "at" in index["key"]]
        return int(expires[0]) // 86_400 if expires else None

    async def missing(keep_days: int) -> list[str]:
        database = connect(uri=uri, name=NAME)
        found = [index.label for index in await missing_indexes(database, keep_days=keep_days)]
        database.close()
        return [label for label in found if "kept" in label]

    for keep_days, kept in ((None, None), ("90", 90), (None, 90), ("30", 30), ("0", None), ("0", None), ("7", 7)):
        assert run_script(keep_days) == kept
        assert asyncio.run(missing(kept or 0)) == []
    assert asyncio.run(missing(0)) == ["pool-daemon-events: at, kept for ever"]
    assert run_script("0") is None
    explorer.events.create_index("at")
    assert run_script("5") == 5
    for wrong in ("", "-1", "1.5", "90d", "20001", "1e3"):
        with pytest.raises(AssertionError, match="must be a whole number of days, from 0 to 20000"):
            script_commands(keep_days=wrong)


def test_the_script_brings_an_existing_role_up_to_date_and_leaves_the_user_alone() -> None:
    *_, (_, command) = script_commands("--existing")

    assert command["updateRole"] == "pool-daemon"
    assert not any("createUser" in command for _, command in script_commands("--existing"))


def _writes(collection: str) -> dict[str, Document]:
    """Make one command of each kind that changes a collection; none touches a document that is there."""
    nobody = {"_id": "nobody's"}
    return {
        "insert": {"insert": collection, "documents": [{}]},
        "update": {"update": collection, "updates": [{"q": nobody, "u": {"$set": {"a": 1}}}]},
        "delete": {"delete": collection, "deletes": [{"q": nobody, "limit": 0}]},
        "create": {"create": collection},
        "createIndexes": {"createIndexes": collection, "indexes": [{"key": {"a": 1}, "name": "a"}]},
        "dropIndexes": {"dropIndexes": collection, "index": "*"},
        "collMod": {"collMod": collection, "validator": {}},
        "drop": {"drop": collection},
    }


def _is_permitted(database: Database[Document], command: Document) -> bool:
    try:
        database.command(command)
    except OperationFailure as error:
        return error.code != UNAUTHORIZED
    return True


def _readiness(daemon: DaemonProcess) -> str:
    """Ask whether the daemon is ready, and return the answer line by line, good or not."""
    (listening,) = daemon.said("http_listening")
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{listening['port']}/readyz", timeout=5) as response:
            return str(response.read().decode())
    except urllib.error.HTTPError as error:
        return error.read().decode()


def _run_out(pool: Document) -> None:
    pool["cus"] = 0.0
    pool["empty_at"] = pool["last_updated"] = int(time.time())


def _command(*words: str, uri: str) -> None:
    """Run one of the daemon's commands as an operator would, as the daemon's user."""
    environ = environment(DATABASE__URI=uri, DATABASE__NAME=NAME)
    subprocess.run([sys.executable, "-m", "pool_daemon", *words], cwd=PROJECT, env=environ, check=True)
