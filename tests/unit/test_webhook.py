"""What a webhook is sent, how it is signed, and what its answers mean."""

import base64
import json
from collections.abc import Iterator
from email.utils import formatdate
from importlib import import_module
from typing import Any

import pytest
from nacl.signing import SigningKey
from pydantic import SecretStr
from webhook_receiver import WebhookReceiver

from pool_daemon.clock import SystemClock
from pool_daemon.errors import ConfigurationError
from pool_daemon.notices import http
from pool_daemon.notices.http import retry_seconds
from pool_daemon.notices.receiver import Delivered, Failed, Gone, Outcome
from pool_daemon.notices.webhook import Webhook
from pool_daemon.settings.notices import Webhook as Settings

OLD, NEW = ("whsec_" + base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
SEED = bytes(range(32))
PRIVATE = "whsk_" + base64.b64encode(SEED).decode()
EVENT = {"specversion": "1.0", "id": "e1", "type": "pool.expiring", "data": {"pools": [{"pool_id": 2**60}]}}


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    receiver = WebhookReceiver()
    with receiver.listening():
        yield receiver


async def sent(url: str, *, keys: str = NEW, timeout_seconds: float = 5) -> Outcome:
    sender = Webhook(
        webhook=Settings(url=SecretStr(url), keys=SecretStr(keys), timeout_seconds=timeout_seconds), clock=SystemClock()
    )
    try:
        return await sender.send(EVENT)
    finally:
        await sender.close()


async def test_an_event_is_a_cloud_event_that_the_library_of_standard_webhooks_verifies(
    receiver: WebhookReceiver,
) -> None:
    assert await sent(receiver.url, keys=f"{NEW} {OLD}") == Delivered()
    (request,) = receiver.requests
    headers = {name.lower(): value for name, value in request.headers.items()}
    assert headers["content-type"].startswith("application/cloudevents+json")
    assert headers["webhook-id"] == EVENT["id"]
    verifier: Any = import_module("standardwebhooks")
    for key in (OLD, NEW):  # while a secret is replaced, a receiver may have either
        assert verifier.Webhook(key).verify(request.body, headers) == EVENT
    with pytest.raises(verifier.WebhookVerificationError):
        verifier.Webhook(OLD).verify(request.body + b" ", headers)


async def test_a_private_key_signs_what_its_public_key_verifies(receiver: WebhookReceiver) -> None:
    await sent(receiver.url, keys=PRIVATE)
    (request,) = receiver.requests
    headers = {name.lower(): value for name, value in request.headers.items()}
    version, _, signature = headers["webhook-signature"].partition(",")
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + request.body
    assert version == "v1a"
    SigningKey(SEED).verify_key.verify(signed, base64.b64decode(signature))
    assert json.loads(request.body) == EVENT


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Delivered()),
        (299, Delivered()),
        (301, Failed("status 301")),
        (400, Failed("status 400")),
        (410, Gone("status 410")),
        (500, Failed("status 500")),
    ],
)
async def test_a_status_says_what_became_of_an_event(receiver: WebhookReceiver, status: int, outcome: Outcome) -> None:
    receiver.status = status
    assert await sent(receiver.url) == outcome


async def test_a_redirection_is_not_followed(receiver: WebhookReceiver) -> None:
    receiver.status, receiver.headers = 307, {"Location": receiver.url}
    await sent(receiver.url)
    assert len(receiver.requests) == 1


async def test_a_receiver_that_hangs_is_given_up(receiver: WebhookReceiver) -> None:
    receiver.hang_seconds = 1
    assert await sent(receiver.url, timeout_seconds=0.1) == Failed("no answer within 0.1 s")


async def test_a_receiver_that_is_away_is_an_outcome_and_no_error() -> None:
    receiver = WebhookReceiver()
    with receiver.listening():
        pass
    outcome = await sent(receiver.url)
    assert isinstance(outcome, Failed)
    assert "Connect" in outcome.reason


async def test_a_receiver_may_name_when_to_come_again(receiver: WebhookReceiver) -> None:
    receiver.status, receiver.headers = 429, {"Retry-After": "120"}
    assert await sent(receiver.url) == Failed("status 429", 120)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("7", 7),
        (" 7 ", 7),
        (formatdate(1030, usegmt=True), 30),
        (formatdate(0, usegmt=True), 0),
        ("-1", None),
        ("soon", None),
        ("9" * 400, 86_400),
        ("99999999", 86_400),
    ],
)
def test_retry_after_is_a_number_or_a_date_and_anything_else_is_ignored(
    text: str | None, seconds: float | None
) -> None:
    assert retry_seconds(text, now=1000) == seconds


def test_without_a_key_or_a_library_the_start_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"webhook\.keys: missing"):
        Webhook(webhook=Settings(url=SecretStr("http://localhost/")), clock=SystemClock())

    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(http, "import_module", missing)
    with pytest.raises(ConfigurationError, match=r"pip install '\.\[webhooks\]'"):
        Webhook(webhook=Settings(url=SecretStr("http://localhost/"), keys=SecretStr(NEW)), clock=SystemClock())
