"""SIGHUP: a running daemon takes what can be changed, and refuses a bad file without losing anything."""

import signal
import urllib.request
from pathlib import Path
from typing import Any

from daemon_process import DaemonProcess, running_daemon
from deadline import wait_until
from endpoint import Endpoint
from explorer import CONTAINER, Explorer
from pymongo import MongoClient

from pool_daemon.guards.gate import StopGate
from pool_daemon.settings import Settings
from pool_daemon.settings.sections import Database, Expiry, Stream
from pool_daemon.telemetry.health import StalenessLimits
from pool_daemon.wiring import Wiring


def reload(daemon: DaemonProcess, config: Path, text: str, event: str) -> dict[str, object]:
    """Rewrite the file, send the signal, and return what the daemon says of it."""
    before = len(daemon.records)
    config.write_text(text)
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for_log(
        lambda record: record["event"] == event and record in daemon.records[before:], within_seconds=10, what=event
    )
    return next(record for record in daemon.records[before:] if record["event"] == event)


def test_a_good_file_takes_effect_and_a_bad_one_leaves_the_old_in_force(
    mongo_uri: str, database_name: str, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("")
    often = {"EXPIRY__MAX_SLEEP_SECONDS": "0.5"}  # each pass says at debug what it armed the timer for
    with running_daemon("--config", str(config), uri=mongo_uri, database_name=database_name, **often) as daemon:
        daemon.wait_for_log(lambda record: record["event"] == "lease_acquired", within_seconds=20, what="the lease")
        applied = reload(daemon, config, "[brake]\nmin_pools = 7\n[expiry]\ndrain_seconds = 21\n", "settings_reloaded")
        assert applied["changed"] == ["brake.min_pools"]
        assert applied["needs_restart"] == ["expiry.drain_seconds"]
        refused = reload(daemon, config, "[brake]\nmin_pools = 'many'\n", "settings_rejected")
        assert "brake.min_pools" in str(refused["reason"])
        again = reload(daemon, config, '[brake]\nmin_pools = 7\n[log]\nlevel = "debug"\n', "settings_reloaded")
        assert again["changed"] == ["log.level"]
        daemon.wait_for_log(lambda record: record["level"] == "debug", within_seconds=20, what="a line of debug")
        metrics = scrape(daemon)
    assert 'pool_daemon_settings_reloads_total{outcome="applied"} 2.0' in metrics
    assert 'pool_daemon_settings_reloads_total{outcome="refused"} 1.0' in metrics


def test_what_was_held_goes_at_once_when_the_brake_is_switched_off(
    mongo: MongoClient[dict[str, Any]], mongo_uri: str, database_name: str, tmp_path: Path
) -> None:
    explorer = Explorer(database=mongo[database_name])
    held = explorer.buy_expired(CONTAINER)
    config = tmp_path / "config.toml"
    config.write_text("[brake]\nmin_pools = 0\n[reconcile]\nenabled = false\n")
    with running_daemon("--config", str(config), uri=mongo_uri, database_name=database_name) as daemon:
        endpoint = Endpoint(daemon)
        wait_until(lambda: endpoint.status_json()["brake"], within_seconds=20, what="the hold")
        endpoint.wait_for("/startupz", 200)  # what begins with a start has had everything looked at
        endpoint.wait_for("/readyz", 200)
        reload(daemon, config, "[brake]\nenabled = false\n[reconcile]\nenabled = false\n", "settings_reloaded")
        wait_until(lambda: explorer.next_actions(held.workload_ids) == [4], within_seconds=5, what="it goes")
        wait_until(lambda: not endpoint.status_json()["holds"], within_seconds=5, what="nothing held to be told")


async def test_how_long_a_stream_may_be_silent_follows_the_settings(mongo_uri: str, database_name: str) -> None:
    parts = Wiring(
        settings=Settings(database=Database(name=database_name)), uri=mongo_uri, identity="me", stop=StopGate()
    )
    assert parts.staleness_limits() == StalenessLimits(
        database_seconds=15, stream_seconds=40, passes_seconds=150, lease_seconds=15
    )
    parts.live.replace(Settings(stream=Stream(stall_seconds=600), expiry=Expiry(max_sleep_seconds=3600)))
    assert parts.staleness_limits() == StalenessLimits(
        database_seconds=15, stream_seconds=610, passes_seconds=150, lease_seconds=15
    ), "what needs a restart stays as it was"
    parts.database.close()


def scrape(daemon: DaemonProcess) -> list[str]:
    (listening,) = daemon.said("http_listening")
    with urllib.request.urlopen(f"http://127.0.0.1:{listening['port']}/metrics", timeout=5) as response:
        return list(response.read().decode().splitlines())
