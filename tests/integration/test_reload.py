"""SIGHUP: a running daemon takes what can be changed, and refuses a bad file without losing anything."""

import signal
import urllib.request
from pathlib import Path

from daemon_process import DaemonProcess, running_daemon


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
    often = {"EXPIRY__SAFETY_SECONDS": "0.5"}  # each pass says at debug what it armed the alarm for
    with running_daemon("--config", str(config), uri=mongo_uri, database_name=database_name, **often) as daemon:
        daemon.wait_for_log(lambda record: record["event"] == "lease_acquired", within_seconds=20, what="the lease")
        applied = reload(daemon, config, "[brake]\npools = 7\n[expiry]\ndrain_seconds = 21\n", "settings_reloaded")
        assert applied["changed"] == ["brake.pools"]
        assert applied["needs_restart"] == ["expiry.drain_seconds"]
        refused = reload(daemon, config, "[brake]\npools = 'many'\n", "settings_refused")
        assert "brake.pools" in str(refused["reason"])
        again = reload(daemon, config, '[brake]\npools = 7\n[log]\nlevel = "debug"\n', "settings_reloaded")
        assert again["changed"] == ["log.level"]
        daemon.wait_for_log(lambda record: record["level"] == "debug", within_seconds=20, what="a line of debug")
        metrics = scrape(daemon)
    assert 'pool_daemon_settings_reloads_total{outcome="applied"} 2.0' in metrics
    assert 'pool_daemon_settings_reloads_total{outcome="refused"} 1.0' in metrics


def scrape(daemon: DaemonProcess) -> list[str]:
    (listening,) = daemon.said("http_listening")
    with urllib.request.urlopen(f"http://127.0.0.1:{listening['port']}/metrics", timeout=5) as response:
        return list(response.read().decode().splitlines())
