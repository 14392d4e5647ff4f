"""Notices as alerts, in Debian's own Alertmanager."""

import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from arithmetic_model import Rates
from daemon_process import running_daemon
from deadline import wait_until
from deploy.alertmanager_server import alertmanager
from explorer import CONTAINER, PLENTY, Explorer

from pool_daemon.harness import environment

SOON_SECONDS = 60
AN_HOUR, A_DAY = 3600, 86_400


def test_an_alert_lasts_until_the_pool_s_end_or_until_it_is_topped_up(
    mongo_uri: str, explorer: Explorer, tmp_path: Path
) -> None:
    with alertmanager(tmp_path) as server:
        settings = {
            "NOTICES__BEFORE": "1d, 1h",
            "NOTICES__INTERVAL_SECONDS": "0.2",
            "ALERTMANAGER__URL": server.url,
            "HTTP__PORT": "0",
        }
        environ = environment(DATABASE__URI=mongo_uri, DATABASE__NAME=explorer.database.name, **settings)
        with running_daemon(uri=mongo_uri, database_name=explorer.database.name, **settings):
            pool = explorer.buy(Rates(cu=A_DAY / 2), [CONTAINER])
            name = str(pool.pool_id)
            wait_until(lambda: server.active("PoolExpiring") == [name], within_seconds=SOON_SECONDS, what="an alert")
            (alert,) = server.alerts()
            assert datetime.fromisoformat(alert["endsAt"]).timestamp() == pool.empty_at
            assert (alert["labels"]["customer_tid"], alert["labels"]["job"]) == ("7", "pool-daemon")

            explorer.shorten(pool.pool_id, Rates(cu=AN_HOUR / 2))
            outbox = explorer.database["pool-daemon-outbox"]
            wait_until(
                lambda: outbox.count_documents({"state": "delivered"}) == 2, within_seconds=SOON_SECONDS, what="1h"
            )
            assert server.active("PoolExpiring") == [name]  # one alert, whatever the lead

            explorer.top_up(pool.pool_id, Rates(cu=PLENTY))
            wait_until(lambda: server.active("PoolExpiring") == [], within_seconds=SOON_SECONDS, what="its resolution")

            explorer.shorten(pool.pool_id, Rates(cu=1))
            wait_until(lambda: server.active("PoolExhausted") == [name], within_seconds=SOON_SECONDS, what="the end")
            wait_until(
                lambda: server.active("PoolWorkloadsDecommissioned") == [name],
                within_seconds=SOON_SECONDS,
                what="what was decommissioned",
            )

        command = [sys.executable, "-m", "pool_daemon", "notices", "test", "alertmanager"]
        ran = subprocess.run(command, env=environ, check=False, text=True, capture_output=True, timeout=60)
        assert (ran.returncode, ran.stdout) == (0, "alertmanager has taken a test event\n"), ran.stderr
        assert "PoolDaemonTest" in [each["labels"]["alertname"] for each in server.alerts()]
        assert all(datetime.fromisoformat(each["endsAt"]).timestamp() > time.time() for each in server.alerts())
