"""What would become of a pool, from the command line: shown, answered, and never written."""

import json
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest
from arithmetic_model import Rates
from explorer import CONTAINER, FREE, PUBLIC_IP, VOLUME, Explorer, Purchase

from pool_daemon.capacity.pool import NEVER
from pool_daemon.cli import main
from pool_daemon.errors import ExitCode
from pool_daemon.harness import environment

DAY = 86_400
NODE = "2fi9ZZiBGW4G9pnrN656bMfW6x55RSoHDeMrd9pgSA8T"
ONE_CU = "container:cpu=2,memory=4096"


class Answer(NamedTuple):
    """What the command said, and its exit code."""

    code: int
    lines: list[str]
    error: str


Ask = Callable[..., Answer]


@pytest.fixture
def ask(mongo_uri: str, database_name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    for name, value in environment(DATABASE__URI=mongo_uri, DATABASE__NAME=database_name).items():
        monkeypatch.setenv(name, value)

    def ask(pool: Purchase, *options: str) -> Answer:
        code = main(["pools", "what-if", str(pool.pool_id), *options])
        shown = capsys.readouterr()
        return Answer(code, shown.out.splitlines(), shown.err)

    return ask


def row(lines: list[str], title: str, name: str) -> str:
    """Return a resource's line of the table with that title."""
    start = next(number for number, line in enumerate(lines) if line.startswith(title))
    return next(line for line in lines[start:] if line.startswith(name))


def test_now_and_then_stand_beside_each_other_with_what_runs_out_first_and_what_stays(
    ask: Ask, explorer: Explorer
) -> None:
    pool = explorer.buy(Rates(cu=8.1 * DAY, su=4.1 * DAY, ipv4u=90.1 * DAY), [CONTAINER, VOLUME, *FREE[:1]])
    before = [explorer.bytes_by_id(name) for name in explorer.database.list_collection_names()]
    answer = ask(pool, *("--add", ONE_CU) * 3, "--add", "public_ip")
    assert answer.code == ExitCode.OK
    assert max(map(len, answer.lines)) <= 80
    assert row(answer.lines, "now", "compute").endswith(", in 8 d")
    assert row(answer.lines, "then", "compute").endswith(", in 2 d")
    assert row(answer.lines, "then", "storage").endswith(", in 4 d")
    assert row(answer.lines, "now", "addresses").endswith("never")
    assert row(answer.lines, "then", "addresses").endswith(", in 90 d")
    first = next(line for line in answer.lines if line.startswith("first "))
    assert first.split()[1] == "compute:"
    words = [line.split() for line in answer.lines if line.endswith((" goes", " stays"))]
    fates = [(each[0], each[1], each[-1]) for each in words]
    container, volume, free = map(str, pool.workload_ids)
    assert fates == [
        (container, "container", "goes"),
        (volume, "volume", "stays"),
        (free, "proxy", "stays"),
        *[("new", "container", "goes")] * 3,
        ("new", "public_ip", "stays"),
    ]
    assert [explorer.bytes_by_id(name) for name in explorer.database.list_collection_names()] == before


@pytest.mark.parametrize(
    ("changes", "lasts", "code"),
    [
        ([], "180s", ExitCode.OK),
        ([], "210s", ExitCode.FAILED),
        (["--add", ONE_CU], "120s", ExitCode.FAILED),
        (["--add", ONE_CU, "--cu", "2x1h"], "120s", ExitCode.OK),
        (["--remove", "CONTAINER"], "30d", ExitCode.OK),
        (["--add", ONE_CU, "--remove", "CONTAINER"], "120s", ExitCode.OK),
        (["--add", "proxy"], "120s", ExitCode.OK),
        (["--add", "volume:size=300"], "1s", ExitCode.FAILED),
    ],
)
def test_whether_it_lasts_is_the_explorer_s_question_and_its_exit_code(
    ask: Ask, explorer: Explorer, changes: list[str], lasts: str, code: ExitCode
) -> None:
    pool = explorer.buy(Rates(cu=205.0), [CONTAINER])
    options = [str(pool.workload_ids[0]) if each == "CONTAINER" else each for each in changes]
    answer = ask(pool, *options, "--lasts", lasts)
    assert answer.code == code
    (told,) = (line for line in answer.lines if line.startswith("lasts "))
    assert f"{'yes' if code is ExitCode.OK else 'no'}: it runs empty" in told
    assert json.loads(ask(pool, *options, "--lasts", lasts, "--json").lines[0])["has_capacity"] == (code is ExitCode.OK)


def test_what_has_to_be_bought_for_it_is_enough(ask: Ask, explorer: Explorer) -> None:
    pool = explorer.buy(Rates(cu=1.0 * DAY), [CONTAINER])
    answer = ask(pool, "--add", ONE_CU, "--lasts", "30d")
    assert answer.lines[-1].strip() == "for that, buy 2 CU for 30 d"
    assert ask(pool, "--add", ONE_CU, "--lasts", "30d", "--cu", "2x30d").code == ExitCode.OK


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        (["--node", NODE, "--owner", "7"], None),
        (["--node", NODE], None),
        (["--owner", "7"], None),
        (["--node", "elsewhere\x1b[2J", "--owner", "7"], r"no: node elsewhere\x1b[2J is not among its 1 nodes"),
        (["--node", NODE, "--owner", "8"], "no: customer 8 does not own it"),
    ],
)
def test_whether_a_workload_is_allowed_is_said_with_the_reason(
    ask: Ask, explorer: Explorer, options: list[str], refusal: str | None
) -> None:
    pool = explorer.buy(Rates(cu=1000.0), [CONTAINER])
    answer = ask(pool, *options)
    assert answer.code == (ExitCode.OK if refusal is None else ExitCode.FAILED)
    assert answer.lines[-1].split(maxsplit=1) == ["allowed", refusal or "yes"]
    assert json.loads(ask(pool, *options, "--json").lines[0])["is_allowed"] == (refusal is None)


def test_without_a_question_and_without_drain_there_is_no_no(ask: Ask, explorer: Explorer) -> None:
    pool = explorer.buy(Rates(), [])
    answer = ask(pool)
    assert answer.code == ExitCode.OK
    assert answer.lines[-1].split(maxsplit=1) == ["first", "nothing drains it, so nothing runs out"]
    told = json.loads(ask(pool, "--add", "public_ip", "--json").lines[0])
    assert (told["has_capacity"], told["is_allowed"], told["runs_out_first"]) == (None, None, "ipv4u")
    assert told["now"]["empty_at"] == NEVER
    assert told["then"]["empty_at"] == pytest.approx(time.time(), abs=10)
    assert [each["workload_id"] for each in told["workloads"]] == [None]


def test_only_a_workload_that_counts_can_be_removed(ask: Ask, explorer: Explorer) -> None:
    pool, other = explorer.buy(Rates(cu=1000.0), [CONTAINER]), explorer.buy(Rates(), [PUBLIC_IP])
    odd = explorer.new_workload(pool.pool_id, VOLUME, type=7)
    explorer.workloads.insert_one(odd)
    explorer.pools.update_one({"_id": pool.pool_id}, {"$push": {"active_workload_ids": odd["_id"]}})
    for workload_id, reason in (
        (99, "workload 99: there is no document of it"),
        (other.workload_ids[0], f"pool {pool.pool_id} does not count it"),
        (odd["_id"], "what it drains is unknown: type 7 is unknown"),
    ):
        answer = ask(pool, "--remove", str(workload_id))
        assert answer.code == ExitCode.FAILED
        assert reason in answer.error


def test_a_long_list_is_begun_and_the_rest_counted(ask: Ask, explorer: Explorer) -> None:
    pool = explorer.buy(Rates(cu=1e6), [CONTAINER] * 5)
    answer = ask(pool, "--limit", "2", "--add", ONE_CU)
    assert answer.lines[-1] == "and 3 more, not read or of unknown units; --limit N reads more of them"
    assert sum("goes" in line for line in answer.lines) == 3
