"""A receiver for operators: Prometheus's Alertmanager, for which each pool of an event is an alert."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from pool_daemon.clock import Clock
from pool_daemon.errors import ConfigurationError
from pool_daemon.notices.http import Poster
from pool_daemon.notices.receiver import Outcome, digest_of
from pool_daemon.plain_text import date
from pool_daemon.settings import notices as settings
from pool_daemon.store.outbox import MessageKind

ALERTS: Final = "/api/v2/alerts"

SHOWN_SECONDS: Final = 3600.0
"""How long an alert lasts that tells of a moment, such as the end itself."""

TEST_SECONDS: Final = 60.0

EXPIRING: Final = "PoolExpiring"

NAMES: Final[Mapping[str, str]] = {
    MessageKind.EXPIRING: EXPIRING,
    MessageKind.MANY_EXPIRING: EXPIRING,
    MessageKind.REPLENISHED: EXPIRING,
    MessageKind.MANY_REPLENISHED: EXPIRING,
    MessageKind.EXHAUSTED: "PoolExhausted",
    MessageKind.DECOMMISSIONED: "PoolWorkloadsDecommissioned",
}
"""The alert of each type of event; of a top-up that of the notice, which it resolves."""


class Alertmanager:
    """Posts alerts: one that a pool runs empty lasts until its end, or until the pool lasts longer again.

    Its labels are the same for all leads, so that a more urgent notice prolongs an alert, and a top-up resolves it.
    Raises ConfigurationError if there is no address, or the library is missing.
    """

    name = "alertmanager"

    def __init__(self, *, alertmanager: settings.Alertmanager, clock: Clock) -> None:
        if alertmanager.url is None:
            raise ConfigurationError("alertmanager.url: missing, so there is nobody to send to")
        address = alertmanager.url.get_secret_value()
        self.timeout_seconds = alertmanager.timeout_seconds
        self.digest = digest_of(address)
        self._clock = clock
        self._poster = Poster(
            setting="alertmanager.url",
            url=address.rstrip("/") + ALERTS,
            timeout_seconds=alertmanager.timeout_seconds,
            clock=clock,
        )

    async def send(self, event: Mapping[str, Any]) -> Outcome:
        """Post the alerts of an event."""
        alerts = list(alerts_of(event, now=self._clock.now()))
        return await self._poster.post(json.dumps(alerts).encode(), {"content-type": "application/json"})

    async def close(self) -> None:
        """Close connections."""
        await self._poster.close()


def alerts_of(event: Mapping[str, Any], *, now: float) -> Iterator[dict[str, Any]]:
    """Yield the alerts of an event that is sent at the unix instant `now`, one for each pool."""
    if event["type"] == MessageKind.TEST:
        yield _alert("PoolDaemonTest", event, {}, {"summary": "A test of pool-daemon"}, until=now + TEST_SECONDS)
    for pool in event["data"]["pools"]:
        labels = {"pool_id": str(pool["pool_id"]), "customer_tid": str(event["data"]["customer_tid"])}
        is_notice = event["type"] in {MessageKind.EXPIRING, MessageKind.MANY_EXPIRING}
        is_over = event["type"] in {MessageKind.REPLENISHED, MessageKind.MANY_REPLENISHED}
        until = now if is_over else pool["empty_at"] if is_notice else now + SHOWN_SECONDS
        yield _alert(NAMES[event["type"]], event, labels, _annotations(event, pool), until=until)


def _alert(
    name: str, event: Mapping[str, Any], labels: Mapping[str, str], annotations: Mapping[str, str], *, until: float
) -> dict[str, Any]:
    """Make an alert without a beginning: Alertmanager takes the time at which it came first, and never one after it."""
    return {
        "labels": {"alertname": name, "job": "pool-daemon", "source": event["source"], "severity": "info", **labels},
        "annotations": {**annotations, "event": event["id"]},
        "endsAt": datetime.fromtimestamp(until, UTC).isoformat(),
    }


def _annotations(event: Mapping[str, Any], pool: Mapping[str, Any]) -> dict[str, str]:
    pool_id, at = pool["pool_id"], date(pool["empty_at"])
    match event["type"]:
        case MessageKind.EXHAUSTED:
            summary = f"Pool {pool_id} has run empty"
        case MessageKind.DECOMMISSIONED:
            summary = f"{pool['workloads']} workloads of pool {pool_id} were decommissioned"
        case _:
            summary = f"Pool {pool_id} runs empty at {at}"
    return {"summary": summary, "empty_at": at}
