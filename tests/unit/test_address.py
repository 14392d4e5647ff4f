"""An address decides where the servers are and who the daemon is; anything else in it is refused or has no effect."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.common import URI_OPTIONS_VALIDATOR_MAP
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from pool_daemon.cli import main
from pool_daemon.errors import ConfigurationError, ExitCode
from pool_daemon.store.address import OURS, WHERE_AND_WHO, read_address
from pool_daemon.store.client import connect

WEAK = (
    "readPreference=secondaryPreferred&readPreferenceTags=dc:a&readPreferenceTags=&maxStalenessSeconds=120"
    "&readConcernLevel=local&w=0&wtimeoutMS=1&journal=false&fsync=false&retryWrites=false&retryReads=false"
    "&timeoutMS=1&socketTimeoutMS=1&connectTimeoutMS=1&serverSelectionTimeoutMS=1&waitQueueTimeoutMS=1&maxPoolSize=1"
    "&heartbeatFrequencyMS=86400000&uuidRepresentation=pythonLegacy&appName=other"
)


def refusal(uri: str) -> str:
    with pytest.raises(ConfigurationError) as refused:
        connect(uri=uri, name="t")
    return str(refused.value)


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("tls=tru", "option 'tls': The value of tls must be 'true' or 'false'"),
        ("tsl=true", "option 'tsl': is no option; did you mean tls?"),
        ("readpreferense=primary", "option 'readpreferense': is no option; did you mean readPreference?"),
        ("nonsense=1", "option 'nonsense': is no option; remove it"),
        ("tls", "option 'tls': is no option; did you mean tls?"),
        ("readPreference=fastest", "option 'readPreference': Not a valid read preference."),
        ("w=-1", "option 'w': "),
        ("retryWrites=perhaps", "option 'retryWrites': "),
        ("maxPoolSize=many", "option 'maxPoolSize': "),
        ("replicaSet=a&replicaSet=b", "option 'replicaSet': is given twice"),
        ("replicaset=a;replicaSet=a", "option 'replicaSet': is given twice"),
        ("compressors=zip", "option 'compressors': "),
        ("tlsCAFile=/nowhere", "option 'tlsCAFile': names a file that cannot be read: "),
        ("authMechanismProperties=AWS_SESSION_TOKEN", "option 'authMechanismProperties': cannot be read"),
        ("tls=true&ssl=false", "conflicting values"),
        ("tls=true&tlsCAFile=/etc/passwd", "no certificate"),
        ("loadBalanced=true&replicaSet=a", "Cannot specify replicaSet with loadBalanced=true"),
        ("tls=true&x@=1", "in user and password write ? as %3F, in options @ as %40"),
    ],
)
def test_an_option_that_the_driver_would_leave_out_is_refused_by_name(option: str, why: str) -> None:
    assert why in refusal(f"mongodb://db/?{option}")


@pytest.mark.parametrize("servers", ["db:99999", "db:0", "db:port", "a,,b", "::1"])
def test_a_server_that_cannot_be_is_refused(servers: str) -> None:
    assert refusal(f"mongodb://{servers}/").startswith("database.uri: ")


@pytest.mark.parametrize("uri", ["mongodb://db", "mongodb://db/", f"mongodb://db/?{WEAK}"])
def test_what_keeps_writes_is_ours_in_each_client_that_is_made(uri: str) -> None:
    database = connect(uri=uri, name="t", timeout_seconds=7, server_selection_seconds=3)
    for client in (database._client, database._stream_client):
        assert client.read_preference == ReadPreference.PRIMARY
        assert client.read_concern == ReadConcern("majority")
        assert client.write_concern == WriteConcern("majority")
        options = client.delegate.options  # motor's own types take it for a method
        assert options.retry_writes
        assert options.retry_reads
        assert options.server_selection_timeout == 3
        assert options.pool_options.max_pool_size == 100
        assert options.pool_options.appname == "pool-daemon"
    assert database.collection("c").read_preference == ReadPreference.PRIMARY
    database.close()


def test_the_options_that_are_ours_are_named_unless_they_say_what_we_do() -> None:
    agreed = "readPreference=primary&w=Majority&retryWrites=true&retryReads=true&journal=true"
    assert read_address(f"mongodb://db/?{agreed}").ignored == ()
    address = read_address("mongodb://u:p@a,b/x?readPreference=nearest&replicaSet=r&W=1&authSource=y")
    assert address.uri == "mongodb://u:p@a,b/x?replicaSet=r&authSource=y"
    assert address.ignored == ("readPreference", "w")


def test_every_option_of_the_driver_is_one_that_an_address_may_have_or_ours() -> None:
    known = {name.lower() for name in (*OURS, *WHERE_AND_WHO)}
    code_only = {"connect", "driver", "server_api", "tz_aware", "unicode_decode_error_handler", "datetime_conversion"}
    assert set(URI_OPTIONS_VALIDATOR_MAP) - known <= code_only | {"waitqueuemultiple"}


@pytest.mark.parametrize("command", ["check-config", "run"])
@pytest.mark.parametrize("option", ["tls=tru", "tsl=true", "tlsCAFile=/nowhere"])
def test_check_config_refuses_what_run_would_refuse(command: str, option: str) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "pool_daemon", command],
        env={"POOL_DAEMON_DATABASE__URI": f"mongodb://daemon:hunter2@db/?{option}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == ExitCode.CONFIGURATION
    assert f"option '{option.partition('=')[0]}'" in told.stderr.splitlines()[-1]
    assert "hunter2" not in told.stderr
    assert "Warning" not in told.stderr


def test_check_config_refuses_a_mongod_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("POOL_DAEMON_EMBEDDED__MONGOD", os.fspath(tmp_path / "none"))
    assert main(["check-config"]) == ExitCode.CONFIGURATION
    assert "correct embedded.mongod" in capsys.readouterr().err


def test_check_config_says_which_options_have_no_effect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POOL_DAEMON_DATABASE__URI", "mongodb://db/?w=1")
    assert main(["check-config"]) == ExitCode.OK
    assert capsys.readouterr().err == "database.uri: w: set by the daemon itself, without effect here\n"


def test_the_driver_would_have_warned_and_gone_on() -> None:
    """The reason for all of this; should the driver begin to refuse by itself, the check may go."""
    with pytest.warns(UserWarning, match="tls"):
        AsyncIOMotorClient("mongodb://db/?tls=tru", connect=False).close()
