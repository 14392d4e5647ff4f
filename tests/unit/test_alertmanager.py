"""The alerts that an event becomes, and what the answers of an Alertmanager mean."""

import json
from datetime import datetime
from typing import Any

import pytest
from pydantic import SecretStr
from webhook_receiver import WebhookReceiver

from pool_daemon.clock import SystemClock
from pool_daemon.errors import ConfigurationError
from pool_daemon.notices.alertmanager import NAMES, Alertmanager, alerts_of
from pool_daemon.notices.receiver import Delivered, Failed, Gone, Outcome
from pool_daemon.settings.notices import Alertmanager as Settings
from pool_daemon.store.outbox import MessageKind

NOW = 1_000_000.0
END = 1_000_600


def event(kind: str) -> dict[str, Any]:
    pools = [{"pool_id": 2**60, "empty_at": END, "lead_seconds": 3600, "workloads": 3}]
    return {"id": "e1", "source": "/pool-daemon/x", "type": kind, "data": {"customer_tid": 7, "pools": pools}}


def ends_at(alert: dict[str, Any]) -> float:
    return datetime.fromisoformat(alert["endsAt"]).timestamp()


@pytest.mark.parametrize(
    ("kind", "until"),
    [
        (MessageKind.EXPIRING, END),
        (MessageKind.MANY_EXPIRING, END),
        (MessageKind.REPLENISHED, NOW),
        (MessageKind.MANY_REPLENISHED, NOW),
        (MessageKind.EXHAUSTED, NOW + 3600),
        (MessageKind.DECOMMISSIONED, NOW + 3600),
    ],
)
def test_each_pool_of_an_event_is_an_alert_that_ends(kind: MessageKind, until: float) -> None:
    (alert,) = alerts_of(event(kind), now=NOW)
    assert ends_at(alert) == until
    assert (alert["labels"]["alertname"], alert["labels"]["pool_id"]) == (NAMES[kind], str(2**60))


def test_a_top_up_has_the_labels_of_the_notice_that_it_resolves() -> None:
    (notice,), (over,) = (
        list(alerts_of(event(kind), now=NOW)) for kind in (MessageKind.EXPIRING, MessageKind.REPLENISHED)
    )
    assert notice["labels"] == over["labels"]


def test_an_end_that_no_calendar_knows_is_no_obstacle() -> None:
    far = event(MessageKind.REPLENISHED)
    far["data"]["pools"][0]["empty_at"] = 2**63 - 1
    (alert,) = alerts_of(far, now=NOW)
    assert ends_at(alert) == NOW


def test_every_type_of_event_is_some_alert() -> None:
    assert set(NAMES) == set(MessageKind) - {MessageKind.TEST}


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, Delivered()), (400, Failed("status 400")), (503, Failed("status 503")), (410, Gone("status 410"))],
)
async def test_alerts_are_posted_to_the_second_version_of_the_interface(status: int, outcome: Outcome) -> None:
    receiver = WebhookReceiver()
    receiver.status = status
    with receiver.listening():
        url = SecretStr(f"http://127.0.0.1:{receiver.port}/prefix/")
        sender = Alertmanager(alertmanager=Settings(url=url), clock=SystemClock())
        try:
            assert await sender.send(event(MessageKind.EXPIRING)) == outcome
        finally:
            await sender.close()
    (request,) = receiver.requests
    assert request.path == "/prefix/api/v2/alerts"
    assert [alert["labels"]["alertname"] for alert in json.loads(request.body)] == ["PoolExpiring"]


def test_without_an_address_there_is_none() -> None:
    with pytest.raises(ConfigurationError, match=r"alertmanager\.url: missing"):
        Alertmanager(alertmanager=Settings(), clock=SystemClock())
