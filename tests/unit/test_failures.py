"""The reason that is told of a failure: the server's own, on one short line, without the command that it quotes."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymongo import errors as driver

from pool_daemon.errors import StoreError, StoreRefusedError
from pool_daemon.store.error_mapping import REASON_CHARACTERS, one_line, translated

QUOTED = (
    'lsid: { id: UUID("4a"), uid: BinData(0, E3) }, $clusterTime: { signature: { hash: BinData(0, 00) } }, $db: "t" }'
)


def denied(command: str, *, on: str = "t") -> driver.OperationFailure:
    return driver.OperationFailure(f"not authorized on {on} to execute command {{ {command}, {QUOTED}", 13)


def bulk_error(**details: object) -> driver.BulkWriteError:
    return driver.BulkWriteError({"writeErrors": [], "writeConcernErrors": [], **details})


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            bulk_error(writeErrors=[{"index": 0, "code": 121, "errmsg": "Document failed validation", "op": {"q": 1}}]),
            "Document failed validation",
        ),
        (
            bulk_error(writeConcernErrors=[{"code": 64, "errmsg": "waiting for replication timed out"}]),
            "waiting for replication timed out",
        ),
        (driver.WriteError("x, full error: {}", 121, {"errmsg": "failed validation"}), "failed validation"),
        (driver.OperationFailure("User writes blocked, full error: {'lsid': 1}", 371), "User writes blocked"),
        (
            denied('insert: "workqueue", ordered: true'),
            "not authorized to insert into workqueue: run deploy/mongodb/create-user.js",
        ),
        (
            denied("aggregate: 1, pipeline: [ { $changeStream: {} } ]"),
            "not authorized to watch t: run deploy/mongodb/create-user.js",
        ),
        (
            denied("killSessions: [ 1 ]", on="admin"),
            "not authorized to run killSessions on admin: run deploy/mongodb/create-user.js",
        ),
        (
            driver.OperationFailure("command find requires authentication", 13),
            "MongoDB requires authentication: name a user in database.uri",
        ),
        (driver.OperationFailure("Authentication failed.", 18), "Authentication failed: is authSource right?"),
        (driver.OperationFailure(f"Unknown thing in {{ find: 5, {QUOTED}", 2), "Unknown thing in"),
        (
            driver.OperationFailure("E11000 duplicate key error collection: t.workqueue dup key: { _id: 5 }", 11000),
            "E11000 duplicate key error collection: t.workqueue dup key: { _id: 5 }",
        ),
        (
            driver.ServerSelectionTimeoutError(
                "db-1:27017: [Errno 111] Connection refused (configured timeouts: connectTimeoutMS: 1), Timeout: 5s, T"
            ),
            "db-1:27017: [Errno 111] Connection refused",
        ),
        (driver.OperationFailure("a\x1b[2Jb\u202e\nsecond line", 2), "a [2Jb"),
        (ValueError(""), "ValueError"),
    ],
)
def test_the_reason_is_the_servers_own(error: Exception, reason: str) -> None:
    assert one_line(error) == reason


def test_what_was_tried_and_the_reason_fit_one_line_together() -> None:
    with pytest.raises(StoreError) as raised, translated("committing a batch"):
        raise driver.OperationFailure("x" * 500)
    assert len(str(raised.value)) == REASON_CHARACTERS


def test_a_missing_privilege_is_told_with_the_remedy() -> None:
    with (
        pytest.raises(StoreRefusedError, match=r"^doing it: not authorized to update p: run .*create-user\.js$"),
        translated("doing it"),
    ):
        raise driver.OperationFailure('not authorized on t to execute command { update: "p", x: 1 }', 13)


@given(st.sampled_from([ValueError, driver.OperationFailure, driver.AutoReconnect, StoreError]), st.text())
def test_every_reason_is_one_printable_line_of_bounded_length(kind: Callable[[str], Exception], text: str) -> None:
    reason = one_line(kind(text))
    assert reason
    assert reason.isprintable()
    assert len(reason) <= REASON_CHARACTERS
