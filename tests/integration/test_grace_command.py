"""What an operator sees of pools in grace, and does about one."""

import io
import json
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from explorer import CONTAINER, VOLUME, Explorer, Purchase
from grace_scene import DAY, HOUR, in_grace, operator_document

from pool_daemon.cli import main
from pool_daemon.errors import ExitCode

Document = dict[str, Any]
Run = Callable[..., list[str]]


@pytest.fixture
def run(run_command: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run commands with settings under which volumes stay for a week, and containers for none of it."""
    monkeypatch.setenv("POOL_DAEMON_GRACE__VOLUME", "7d")
    monkeypatch.setenv("POOL_DAEMON_GRACE__BUDGET", "30d")
    return run_command


@pytest.fixture
def pool(explorer: Explorer) -> Purchase:
    return explorer.buy_expired(VOLUME, customer_tid=7)


def record_of(explorer: Explorer, pool: Purchase) -> Document:
    record: Document | None = explorer.database["pool-daemon-grace"].find_one({"_id": pool.pool_id})
    assert record is not None
    return record


def test_pools_in_grace_are_listed_with_their_latest_end(run: Run, explorer: Explorer, pool: Purchase) -> None:
    assert run("grace", "list") == ["no pool is in grace"]
    began = in_grace(explorer, pool, for_seconds=HOUR)
    other = explorer.buy_expired(VOLUME)
    in_grace(explorer, other, for_seconds=DAY, operator=operator_document(until=2_000_000_000, at=int(time.time())))
    in_grace(explorer, explorer.buy_expired(VOLUME), for_seconds=DAY, running=False)

    heading, first, second = run("grace", "list")

    assert heading.split("  ")[-1].strip() == "by"
    assert first.split()[:2] == [str(pool.pool_id), "7"]
    assert "storage" in first
    assert second.endswith("2033-05-18 03:33:20  ann@desk: a ticket")
    shown = [json.loads(line) for line in run("grace", "list", "--json")]
    assert [(each["pool_id"], each["ends_at"]) for each in shown] == [
        (pool.pool_id, began + 7 * DAY),
        (other.pool_id, 2_000_000_000),
    ]
    assert shown[0]["since"] == {"su": began}
    assert run("grace", "list", "--limit", "1")[-1] == "and 1 more pools; --limit N shows more of them"


def test_the_latest_end_is_by_the_policy_of_the_owner(run: Run, explorer: Explorer, pool: Purchase) -> None:
    began = in_grace(explorer, pool, for_seconds=HOUR)
    run("policy", "set", "7", "--volume", "2d", "--reason", "contract")
    (line,) = run("grace", "list", "--json")
    assert json.loads(line)["ends_at"] == began + 2 * DAY


def test_an_extension_counts_from_the_end_that_was_foreseen_with_a_record_of_who_and_why(
    run: Run, explorer: Explorer, pool: Purchase
) -> None:
    began = in_grace(explorer, pool, for_seconds=HOUR)
    said, before = run("grace", "extend", str(pool.pool_id), "--by", "2d", "--reason", "on holiday")
    assert said.startswith(f"pool {pool.pool_id} is in grace until ")
    assert said.endswith(", in 9 d")
    assert before.startswith("before, it was until ")
    operator = record_of(explorer, pool)["operator"]
    assert (operator["until"], operator["reason"]) == (began + 9 * DAY, "on holiday")
    (line,) = run("grace", "extend", str(pool.pool_id), "--by", "1d", "--reason", "still", "--json")
    assert json.loads(line) == {
        "pool_id": pool.pool_id,
        "until": began + 10 * DAY,
        "before": began + 9 * DAY,
        "changed": True,
    }
    records = list(explorer.events.find({"kind": "grace_changed"}, sort=[("at", 1)]))
    assert [(each["pool_id"], each["customer_tid"], each["reason"], each["actor"]) for each in records] == [
        (pool.pool_id, 7, "on holiday", "operator"),
        (pool.pool_id, 7, "still", "operator"),
    ]


def test_what_is_extended_after_its_time_has_so_much_from_now_on(run: Run, explorer: Explorer, pool: Purchase) -> None:
    in_grace(explorer, pool, for_seconds=8 * DAY)
    (line,) = run("grace", "extend", str(pool.pool_id), "--by", "1h", "--reason", "a", "--json")
    assert json.loads(line)["until"] == pytest.approx(time.time() + HOUR, abs=30)


def test_a_grace_is_ended_now_once_a_person_has_confirmed(
    run: Run, explorer: Explorer, pool: Purchase, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_grace(explorer, pool, for_seconds=HOUR)
    end = partial(run, "grace", "end", str(pool.pool_id), "--reason", "moved away")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{pool.pool_id}\n"))  # which is no terminal
    end(code=ExitCode.FAILED, error="nothing changed; --yes does it without asking\n")
    assert "operator" not in record_of(explorer, pool)
    end("--yes")
    assert record_of(explorer, pool)["operator"]["until"] == pytest.approx(time.time(), abs=30)


def test_a_dry_run_says_what_would_be_and_writes_nothing(run: Run, explorer: Explorer, pool: Purchase) -> None:
    in_grace(explorer, pool, for_seconds=HOUR)
    before = record_of(explorer, pool)
    said, _ = run("grace", "end", str(pool.pool_id), "--reason", "a", "--dry-run")
    assert said.startswith(f"pool {pool.pool_id} would be in grace until ")
    (line,) = run("grace", "extend", str(pool.pool_id), "--by", "2d", "--reason", "a", "--dry-run", "--json")
    assert json.loads(line)["changed"] is False
    assert record_of(explorer, pool) == before
    assert explorer.events.count_documents({}) == 0


def test_a_pool_that_is_not_in_grace_cannot_be_given_more_or_less(run: Run, explorer: Explorer, pool: Purchase) -> None:
    def refuse(*words: str) -> None:
        refusal = f"pool {pool.pool_id} is not in grace\n"
        run("grace", words[0], str(pool.pool_id), "--reason", "a", *words[1:], code=ExitCode.FAILED, error=refusal)

    refuse("extend", "--by", "2d")
    in_grace(explorer, pool, for_seconds=HOUR, over={"su": 1}, running=False)
    refuse("extend", "--by", "2d")
    refuse("end", "--yes")


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["extend", "17", "--by", "2d"], "--reason"),
        (["extend", "17", "--reason", "a"], "--by"),
        (["extend", "17", "--by", "0", "--reason", "a"], "--by: must be a duration"),
        (["end", "17", "--reason", "two\nlines"], "--reason: must be one line"),
        (["end", "all", "--reason", "a"], "POOL: must be a whole number"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_remedy(
    words: list[str], remedy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["grace", *words]) == ExitCode.USAGE
    assert remedy in capsys.readouterr().err


def test_a_pool_in_grace_is_shown_as_such(run: Run, explorer: Explorer) -> None:
    pool = explorer.buy_expired(VOLUME, CONTAINER)
    volume, container = pool.workload_ids
    began = in_grace(explorer, pool, for_seconds=HOUR)
    lines = run("pools", "show", str(pool.pool_id))
    at = next(number for number, line in enumerate(lines) if line.startswith("grace"))
    assert re.fullmatch(r"grace         in grace since \S+ \S+, (60 min|1 h) ago: out of storage", lines[at])
    assert re.fullmatch(rf" +volume {volume} goes in 6 d (22|23) h", lines[at + 1])
    assert re.fullmatch(r" +\d+ CU-days and \d+ SU-days buy 30 d", lines[at + 2])
    assert max(map(len, lines)) <= 80
    (whole,) = run("pools", "show", str(pool.pool_id), "--json")
    assert json.loads(whole)["grace"]["workloads"] == [{"workload_id": volume, "goes_at": began + 7 * DAY}]
    assert str(container) not in " ".join(lines[at : at + 3])


def test_a_pool_in_grace_is_explained_and_adds_up(run: Run, explorer: Explorer) -> None:
    pool = explorer.buy_expired(VOLUME, customer_tid=7)
    (volume,) = pool.workload_ids
    in_grace(explorer, pool, for_seconds=HOUR)
    told = " ".join(" ".join(run("explain", "pool", str(pool.pool_id))).split())
    assert f"volume {volume} goes in 6 d" in told
    assert told.endswith("it adds up")
    assert run("explain", "workload", str(volume))[-1] == "it adds up"
    run("policy", "set", "7", "--volume", "1min", "--reason", "a")
    told = " ".join(" ".join(run("explain", "workload", str(volume), code=ExitCode.FAILED)).split())
    assert "no guard keeps the daemon from it" in told
    told = " ".join(" ".join(run("explain", "pool", str(pool.pool_id), code=ExitCode.FAILED)).split())
    assert "no guard keeps the daemon from them" in told


def test_a_pool_is_overdue_once_the_grace_of_a_workload_is_over(run: Run, explorer: Explorer, pool: Purchase) -> None:
    in_grace(explorer, pool, for_seconds=HOUR)
    other = explorer.buy_expired(CONTAINER)
    late = explorer.buy_expired(VOLUME, CONTAINER)
    in_grace(explorer, late, for_seconds=8 * DAY)
    overdue = {
        each["pool_id"]: each["overdue_workloads"]
        for each in map(json.loads, run("pools", "list", "--overdue", "--json"))
    }
    assert overdue == {other.pool_id: 1, late.pool_id: 2}
    assert {json.loads(line)["pool_id"] for line in run("pools", "next", "--json")} == {other.pool_id, late.pool_id}
