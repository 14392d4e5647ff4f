"""The unit as it is shipped, on a real systemd: installed by the README's own lines, misled, hung, and stopped."""

import json
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from deadline import wait_until
from deploy.files import DEPLOY, PROJECT, README, RUNBOOK, commands, free_port, run
from deploy.machine import Machine
from deploy.service import DROP_IN, Service
from explorer import CONTAINER, FREE, Explorer
from ledger import DELETE

from pool_daemon.settings import Settings

UNIT = DEPLOY / "systemd/pool-daemon.service"
NOWHERE = "mongodb://127.0.0.1:9/"

MOST_EXPOSED = 10
"""The greatest exposure allowed, in tenths; nine is the least for a service that speaks TCP."""

START_SECONDS = 60
EXPIRE_SECONDS = 5
WATCHDOG_SECONDS = 3
HANGING = "/etc/pool-daemon/hanging"
HANG_ON_SIGUSR2 = """
import signal, time
def hang(number, frame):
    time.sleep(600)
signal.signal(signal.SIGUSR2, hang)
"""
"""A stopped process would not do: awake again, its threads run on under the eyes of who writes down their stacks."""

DEFAULT_PORT = Settings().http.port
STOP_MARGIN_SECONDS = 5
"""What a stop may take besides the pass under way and the release of the lease."""

pytestmark = pytest.mark.timeout(300)  # an installation takes its time on a busy machine


@pytest.fixture(scope="module")
def machine(distribution: Path, mongo_uri: str) -> Iterator[Machine]:
    """Boot a Debian and install the service in it as the README says."""
    with Machine(shown={distribution: "/project"}) as machine:
        offline = ("env", "--chdir=/project", "PIP_NO_INDEX=1", "PIP_FIND_LINKS=/project/wheels")
        for command in commands("### Install under systemd", README):
            machine.run(*offline, "bash", "-c", command, given=mongo_uri)
        yield machine


@pytest.fixture
def service(machine: Machine, mongo_uri: str, explorer: Explorer) -> Iterator[Service]:
    """Give the installed service a database and a port of the test's own, and a watchdog that barks early."""
    service = Service(machine)
    service.control("stop")
    service.set_uri(mongo_uri)
    service.set_config((PROJECT / "config.example.toml").read_text(encoding="utf-8"))
    service.override(*_of_its_own(explorer))
    yield service
    sys.stdout.write(service.journal())  # shown where the test failed
    service.control("stop")
    service.control("reset-failed")


def _of_its_own(explorer: Explorer) -> list[str]:
    """Give the lines of the unit that a test changes."""
    return [
        f"Environment=POOL_DAEMON_DATABASE__NAME={explorer.database.name} POOL_DAEMON_HTTP__PORT={free_port()}",
        f"WatchdogSec={WATCHDOG_SECONDS}",
    ]


def test_the_unit_is_exposed_as_little_as_a_service_on_tcp_can_be() -> None:
    run("systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager", UNIT)


def test_the_unit_gives_a_stop_more_time_than_the_pass_under_way_and_the_lease_may_take() -> None:
    (stop_seconds,) = re.findall(r"^TimeoutStopSec=(\d+)s$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)

    settings = Settings()
    assert int(stop_seconds) > settings.expiry.drain_seconds + settings.lease.seconds + STOP_MARGIN_SECONDS


def test_systemd_finds_nothing_wrong_with_the_installed_unit(machine: Machine) -> None:
    verified = machine.attempt("systemd-analyze", "verify", "pool-daemon.service")

    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


def test_the_service_runs_as_nobody_and_has_nowhere_to_write_but_its_state(service: Service) -> None:
    service.control("start")

    assert service.tells("UID") not in ("0", "[not set]")
    assert service.writable_folders() == ["/var/lib/private/pool-daemon"]


def test_the_service_is_ready_when_it_can_work_and_expires_a_pool(
    machine: Machine, service: Service, explorer: Explorer
) -> None:
    service.control("start")

    assert service.is_("active")
    _expect_expiry(explorer)
    lease = explorer.database["pool-daemon-lease"].find_one()
    assert lease is not None
    assert lease["holder"] == f"pool-daemon@{machine.run('hostname').strip()}"


def test_a_service_without_its_database_is_not_ready_and_says_what_it_waits_for(service: Service) -> None:
    service.set_uri(NOWHERE)
    service.override("TimeoutStartSec=2s", "Environment=POOL_DAEMON_DATABASE__SERVER_SELECTION_SECONDS=1")

    service.control("start", "--no-block")

    # Three attempts of a second each: longer than systemd would wait if it were not asked to.
    wait_until(
        lambda: service.journal().count("database_unavailable") >= 3,
        within_seconds=START_SECONDS,
        what="three attempts",
    )
    assert "database" in service.tells("StatusText")
    assert service.is_("activating")
    service.control("stop")
    assert service.tells("Result") == "success"


def test_the_journal_knows_how_urgent_each_line_is(service: Service, explorer: Explorer) -> None:
    explorer.pools.insert_one({"_id": "no number"})
    service.control("start")
    _expect_expiry(explorer)
    # The database shows what was done before the journal does.
    for line, priority in (("workload_decommissioned", "info..info"), ("pool_unreadable", "warning")):
        wait_until(
            partial(_is_in_the_journal, service, line, priority=priority),
            within_seconds=START_SECONDS,
            what=f"{line} among the lines of its priority",
        )

    assert "pool_unreadable" not in service.journal(priority="info..info")
    (warning,) = service.journal(priority="warning").splitlines()
    assert json.loads(warning)["event"] == "pool_unreadable"


def test_a_hung_service_leaves_its_stack_in_the_journal_and_comes_back(
    machine: Machine, service: Service, explorer: Explorer
) -> None:
    machine.write(f"{HANGING}/sitecustomize.py", HANG_ON_SIGUSR2)
    service.override(*_of_its_own(explorer), f"Environment=PYTHONPATH={HANGING}")
    service.control("start")

    service.signal("SIGUSR2")

    wait_until(lambda: service.restarts() == 1, within_seconds=START_SECONDS + WATCHDOG_SECONDS, what="a restart")
    wait_until(lambda: service.is_("active"), within_seconds=START_SECONDS, what="a service that is ready again")
    journal = service.journal()
    assert "Watchdog timeout" in journal
    assert "Fatal Python error: Aborted" in journal
    assert re.search(r'sitecustomize.py", line \d+ in hang$', journal, re.MULTILINE)
    assert 'asyncio/base_events.py", line' in journal
    _expect_expiry(explorer)


def test_the_addresses_that_it_may_talk_to_can_be_replaced(machine: Machine, service: Service) -> None:
    machine.run("cp", "/project/deploy/systemd/addresses.conf", DROP_IN)
    machine.run("systemctl", "daemon-reload")

    assert set(service.tells("IPAddressAllow").split()) == {"127.0.0.0/8", "::1/128"}


def test_a_reloaded_service_takes_its_new_settings_and_stays_ready(service: Service) -> None:
    service.control("start")

    service.set_config('[log]\nlevel = "debug"\n')
    service.control("reload")

    wait_until(lambda: "settings_reloaded" in service.journal(), within_seconds=START_SECONDS, what="new settings")
    wait_until(lambda: service.is_("active"), within_seconds=START_SECONDS, what="a service that is ready again")
    assert service.restarts() == 0


def test_a_reload_with_settings_that_make_no_sense_fails_and_changes_nothing(
    service: Service, explorer: Explorer
) -> None:
    service.control("start")

    service.set_config("[expiry]\nconcurrency = 0\n")

    assert service.attempt("reload") != 0
    wait_until(lambda: "expiry.concurrency" in service.journal(), within_seconds=START_SECONDS, what="what is wrong")
    assert "settings_rejected" not in service.journal()
    assert service.is_("active")
    assert service.restarts() == 0
    _expect_expiry(explorer)


def test_the_service_is_held_to_a_bound_of_memory_and_of_tasks(machine: Machine, service: Service) -> None:
    service.control("start")

    assert int(service.tells("MemoryMax")) == 512 * 2**20
    assert int(service.tells("TasksMax")) == 64
    status = machine.run("cat", f"/proc/{service.tells('MainPID')}/status")
    (threads,) = re.findall(r"^Threads:\s+(\d+)$", status, re.MULTILINE)
    assert int(threads) < 32


def test_nothing_is_installed_whose_hash_is_not_written_down() -> None:
    installs = [line for line in commands("### Install under systemd", README) if " install " in line and "pip" in line]

    assert installs
    assert all("--require-hashes" in line or "--no-deps dist/" in line for line in installs)


def test_an_operator_reaches_the_database_of_the_service(service: Service, explorer: Explorer) -> None:
    pool = explorer.buy_expired(*FREE)

    assert str(pool.pool_id) in service.command("pools", "list", database_name=explorer.database.name)


def test_what_the_runbook_says_to_look_at_is_there_to_be_seen(
    machine: Machine, service: Service, explorer: Explorer
) -> None:
    service.override()
    service.set_config(f'[database]\nname = "{explorer.database.name}"\n[http]\nport = {DEFAULT_PORT}\n')
    service.control("start")
    _expect_expiry(explorer)

    status, picture, health, complaints = (
        machine.run("bash", "-c", command) for command in commands("## Look first", RUNBOOK)
    )

    assert "active (running)" in status
    assert re.search(r'Status: ".+"', status)
    assert "leader in term 1" in picture
    assert "- " not in health
    assert '"level": "info"' not in complaints


def test_a_stopped_service_ends_in_order(service: Service) -> None:
    service.control("start")

    service.control("stop")

    assert service.tells("Result") == "success"
    assert service.tells("ExecMainStatus") == "0"
    assert '"event": "stopped"' in service.journal()


def test_a_service_with_settings_that_make_no_sense_is_not_started_again(service: Service) -> None:
    service.override("Environment=POOL_DAEMON_EXPIRY__MAX_SLEEP_SECONDS=soon")

    _expect_failure(service, status=78)
    assert "expiry.max_sleep_seconds" in service.journal()


def test_a_service_without_its_credential_is_not_started_again(service: Service) -> None:
    service.set_uri(None)

    _expect_failure(service, status=243)


def _expect_failure(service: Service, *, status: int) -> None:
    service.control("start", "--no-block")
    wait_until(lambda: service.is_("failed"), within_seconds=START_SECONDS, what="a service that gave up")
    assert service.tells("ExecMainStatus") == str(status)
    assert service.restarts() == 0


def _is_in_the_journal(service: Service, line: str, *, priority: str) -> bool:
    return line in service.journal(priority=priority)


def _expect_expiry(explorer: Explorer) -> None:
    pool = explorer.buy_expired(CONTAINER, *FREE)
    wait_until(
        lambda: explorer.next_action(pool.workload_ids[0]) == DELETE,
        within_seconds=EXPIRE_SECONDS,
        what="a decommissioned workload",
    )
    assert explorer.next_actions(pool.workload_ids[1:]) == [3] * len(FREE)
