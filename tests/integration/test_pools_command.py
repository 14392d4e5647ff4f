"""`pool-daemon pools`, on data as customers write it: hostile, large, old, and none at all."""

import json
from typing import Any

import pytest
from bson import Code, Int64
from explorer import CONTAINER, MISSING, Explorer
from pools_command import Pools

from pool_daemon.errors import ExitCode

NEVER = 2**63 - 1
HOSTILE_IDS = ["[/nope]", "[red]x[/red]", "\x1b]0;t\x07\x1b[2J", "x\nFORGED 1 2 3", "\u202eabc", "A" * 900]


@pytest.fixture
def pools(mongo_uri: str, database_name: str) -> Pools:
    return Pools(mongo_uri, database_name)


def test_a_list_of_no_pools_says_so(pools: Pools) -> None:
    assert pools.run("list").stdout == "there are no pools\n"
    assert pools.run("list", "--owner", "7").stdout == "customer 7 has no pools\n"
    assert pools.run("list", "--json").stdout == ""


def test_a_list_fits_the_narrowest_terminal_also_through_a_pipe(pools: Pools, explorer: Explorer) -> None:
    explorer.buy_expired(*[CONTAINER] * 12)
    document = explorer.buy_expired(CONTAINER, cus=1.5e12, sus=2.5e6, empty_at=Int64(NEVER)).document
    listed = pools.run("list")
    head, first, second = listed.stdout.splitlines()
    assert listed.returncode == ExitCode.OK
    assert max(map(len, (head, first, second))) <= 80
    assert all(line == line.rstrip() for line in (head, first, second))
    assert first.split()[:2] == [str(document["_id"] - 1), "7"]
    assert first.split()[5] == "12"
    assert second.split() == [str(document["_id"]), "7", "1.5T", "2.5M", "0.5", "1", "never"]
    assert first.endswith(("59 min ago", "60 min ago"))


@pytest.mark.parametrize("hostile", HOSTILE_IDS, ids=ascii)
def test_a_hostile_id_breaks_no_table(pools: Pools, explorer: Explorer, hostile: str) -> None:
    explorer.buy_expired(CONTAINER, _id=hostile)
    explorer.buy_expired(CONTAINER, _id=Code(hostile))
    explorer.buy_expired(CONTAINER)
    for form in ([], ["--json"]):
        listed = pools.run("list", *form)
        assert (listed.returncode, listed.stderr) == (ExitCode.FAILED, "")
        lines = listed.stdout.splitlines()
        assert len(lines) == 4 - len(form)
        assert not {"\x1b", "\x07", "\u202e"} & set(listed.stdout)
        assert max(map(len, lines)) < 400


def test_hostile_nodes_break_no_picture_and_many_are_counted(pools: Pools, explorer: Explorer) -> None:
    nodes = ["[/nope]", "\x1b[2J", "x\nFORGED", "B" * 900, *(f"n{number}" for number in range(20))]
    pool = explorer.buy_expired(*[CONTAINER] * 12, node_ids=nodes)
    shown = pools.run("show", str(pool.pool_id))
    assert (shown.returncode, shown.stderr) == (ExitCode.OK, "")
    lines = [line.strip() for line in shown.stdout.splitlines()]
    assert lines[2:5] == ["nodes         24", "[/nope]", r"\x1b[2J"]
    assert lines[5:7] == [r"x\nFORGED", "B" * 65 + "…"]
    assert lines[7:14] == ["n0", "n1", "n2", "n3", "n4", "n5", "and 14 more"]
    whole = json.loads(pools.run("show", "--json", str(pool.pool_id)).stdout)
    assert (whole["node_ids"], len(whole["active_workload_ids"])) == (nodes, 12)


def test_a_list_takes_no_more_memory_than_a_page_of_numbers(pools: Pools, explorer: Explorer) -> None:
    explorer.buy_expired(CONTAINER)
    before = pools.peak_mb("list")
    for _ in range(30):
        explorer.pools.insert_many(
            [explorer.draft(CONTAINER.rates, [], node_ids=["n" * 1_000_000] * 4).document for _ in range(2)]
        )
    many = explorer.draft(CONTAINER.rates, [], active_workload_ids=[Int64(each) for each in range(200_000)])
    explorer.pools.insert_one(many.document)
    assert pools.peak_mb("list") < before + 25
    assert pools.peak_mb("show", str(many.pool_id)) < before + 25
    listed = [json.loads(line) for line in pools.run("list", "--json").stdout.splitlines()]
    assert [(each["nodes"], each["workloads"]) for each in listed[-2:]] == [(4, 0), (1, 200_000)]
    assert "node_ids" not in listed[0]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"node_ids": "a"}, "node_ids is of type string, not an array"),
        ({"node_ids": ["a", 5]}, "node_ids holds what is of type int"),
        ({"active_workload_ids": ["[/x]"]}, "active_workload_ids holds what is of type string"),
        ({"cus": "\x1b[2J"}, "cus is of type str, not a number"),
    ],
    ids=str,
)
def test_an_unreadable_pool_is_listed_with_what_is_wrong(
    pools: Pools, explorer: Explorer, fields: dict[str, Any], reason: str
) -> None:
    pool = explorer.buy_expired(CONTAINER, **fields)
    listed = pools.run("list")
    assert listed.returncode == ExitCode.FAILED
    assert listed.stdout.splitlines()[1].split(maxsplit=1) == [str(pool.pool_id), f"unreadable: {reason}"]
    shown = pools.run("show", str(pool.pool_id))
    assert (shown.returncode, shown.stdout, shown.stderr) == (ExitCode.FAILED, "", f"pool-daemon: {reason}\n")


def test_a_pool_of_an_old_explorer_is_listed_and_shown(pools: Pools, explorer: Explorer) -> None:
    missing = ("ipv4us", "active_ipv4", "sponsor_tid", "node_ids", "active_workload_ids")
    pool = explorer.buy_expired(CONTAINER, **dict.fromkeys(missing, MISSING))
    assert pools.run("list").returncode == ExitCode.OK
    shown = pools.run("show", str(pool.pool_id)).stdout.splitlines()
    assert shown[1:3] == ["owner         7, no sponsor", "nodes         none"]
    assert [line.split()[:3] for line in shown if line.startswith("addresses")] == [["addresses", "nothing", "0"]]
    listed = pools.run("list", "--owner", "7", "--json")
    assert json.loads(listed.stdout)["workloads"] == 0


def test_a_pool_that_is_not_there_is_not_shown(pools: Pools, explorer: Explorer) -> None:
    explorer.buy_expired(CONTAINER)
    assert pools.run("show", str(NEVER)).stderr == f"pool-daemon: pool {NEVER}: the specified pool could not be found\n"
