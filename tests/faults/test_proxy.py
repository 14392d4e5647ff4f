"""The network of the suite does what it is told: else a fault that never happened would count as survived."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from faults.proxy import Command, Direction, Fate, Proxy
from pymongo import MongoClient
from pymongo.errors import AutoReconnect, NetworkTimeout, ServerSelectionTimeoutError

Client = MongoClient[dict[str, Any]]


def connected(network: Proxy) -> Client:
    return MongoClient(network.uri)


PATIENCE_MILLISECONDS = 400


@pytest.fixture
def client(network: Proxy) -> Iterator[Client]:
    """Connect through the network; nothing is tried twice, and nobody waits long."""
    options: dict[str, Any] = {
        "retryWrites": False,
        "retryReads": False,
        "serverSelectionTimeoutMS": PATIENCE_MILLISECONDS,
        "socketTimeoutMS": PATIENCE_MILLISECONDS,
        "connectTimeoutMS": PATIENCE_MILLISECONDS,
    }
    with MongoClient(network.uri, **options) as client:
        client.admin.command("ping")
        yield client


def test_a_refused_network_lets_nothing_through_until_it_is_healed(network: Proxy, client: Client) -> None:
    network.refuse()
    with pytest.raises((AutoReconnect, ServerSelectionTimeoutError)):
        client.admin.command("ping")
    network.heal()
    with connected(network) as fresh:
        assert fresh.admin.command("ping")["ok"]


def test_a_cut_connection_is_reset_and_a_new_one_passes(network: Proxy) -> None:
    with connected(network) as client, socket.create_connection(("127.0.0.1", network.port)) as idle:
        client.admin.command("ping")
        network.cut()
        with pytest.raises(ConnectionResetError):
            idle.recv(1)
    with connected(network) as another:
        assert another.admin.command("ping")["ok"]


@pytest.mark.parametrize(("direction", "arrives"), [(Direction.REQUESTS, 0), (Direction.REPLIES, 1)])
def test_what_is_swallowed_is_missed_on_one_side_only(
    network: Proxy, client: Client, mongo: Client, database_name: str, direction: Direction, arrives: int
) -> None:
    network.swallow(direction)
    with pytest.raises(NetworkTimeout):
        client[database_name]["things"].insert_one({})
    assert mongo[database_name]["things"].count_documents({}) == arrives


def test_a_torn_message_is_never_completed(network: Proxy, client: Client, mongo: Client, database_name: str) -> None:
    network.hold_after(30, Direction.REQUESTS)
    with pytest.raises(NetworkTimeout):
        client[database_name]["things"].insert_one({})
    assert mongo[database_name]["things"].count_documents({}) == 0


def test_a_delayed_network_is_slow_in_both_directions(network: Proxy, client: Client) -> None:
    network.delay(PATIENCE_MILLISECONDS / 1000 * 0.6)
    with pytest.raises(NetworkTimeout):
        client.admin.command("ping")


@pytest.mark.parametrize(
    ("fate", "seen", "arrives"),
    [
        (Fate.CUT_REQUEST, AutoReconnect, 0),
        (Fate.SWALLOW_REQUEST, NetworkTimeout, 0),
        (Fate.CUT_REPLY, AutoReconnect, 1),
        (Fate.SWALLOW_REPLY, NetworkTimeout, 1),
    ],
)
def test_a_command_meets_its_fate(
    network: Proxy, client: Client, mongo: Client, database_name: str, fate: Fate, seen: type[Exception], arrives: int
) -> None:
    met: list[Command] = []

    def judge(command: Command) -> Fate:
        if command.name != "insert":
            return Fate.PASS
        met.append(command)
        return fate

    network.judge_commands(judge)
    with pytest.raises(seen):
        client[database_name]["things"].insert_one({})
    assert [command.collection for command in met] == ["things"]
    assert mongo[database_name]["things"].count_documents({}) == arrives
