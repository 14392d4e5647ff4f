"""The parts of notices, which exist only if owners are to be told: the outbox, the announcer, a delivery a receiver."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol

from pool_daemon.clock import Clock
from pool_daemon.errors import ConfigurationError
from pool_daemon.guards.gate import Gate
from pool_daemon.notices.alertmanager import Alertmanager
from pool_daemon.notices.announcer import Announcer
from pool_daemon.notices.delivery import Delivery, DeliveryObserver
from pool_daemon.notices.receiver import Receiver
from pool_daemon.notices.receiver_watch import ReceiverWatch, StandingsObserver
from pool_daemon.notices.webhook import Webhook
from pool_daemon.settings import Settings
from pool_daemon.store.client import Database
from pool_daemon.store.ends import Ends, EndsObserver
from pool_daemon.store.notices import NoticeStore
from pool_daemon.store.outbox import Outbox


def receiver_names(settings: Settings) -> list[str]:
    """Return the names of the configured receivers, whether or not they can be used."""
    configured = {Webhook.name: settings.webhook.url, Alertmanager.name: settings.alertmanager.url}
    return [name for name, url in configured.items() if url is not None]


def receivers_of(settings: Settings, *, clock: Clock) -> list[Receiver]:
    """Return the configured receivers; nothing is sent.

    Raises ConfigurationError if one cannot be used, or there is none although `grace.until_told` waits for one: an
    event without a receiver counts as delivered once it is written.
    """
    receivers: list[Receiver] = []
    if settings.webhook.url is not None:
        receivers.append(Webhook(webhook=settings.webhook, clock=clock))
    if settings.alertmanager.url is not None:
        receivers.append(Alertmanager(alertmanager=settings.alertmanager, clock=clock))
    if settings.grace.until_told and not receivers:
        raise ConfigurationError(
            "grace.until_told: needs a receiver that confirms: set webhook.url or alertmanager.url"
        )
    return receivers


class NoticesObserver(DeliveryObserver, StandingsObserver, EndsObserver, Protocol):
    """The receiver of what becomes of notices."""


class NoticeParts:
    """Announcer and deliveries on a database; none runs yet.

    `sleep` sleeps as a named job of the timer. Raises ConfigurationError if a receiver cannot be used.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        database: Database,
        gate: Gate,
        clock: Clock,
        observer: NoticesObserver,
        sleep: Callable[[str, float], Coroutine[Any, Any, None]],
    ) -> None:
        receivers = receivers_of(settings, clock=clock)
        self.outbox = Outbox(
            database=database,
            receivers=receiver_names(settings),
            keep_seconds=settings.notices.keep_seconds,
        )
        self.ends = Ends(outbox=self.outbox, clock=clock, observer=observer)
        store = NoticeStore(database=database, outbox=self.outbox)
        self._announcer = Announcer(
            store=store,
            settings=settings.notices,
            gate=gate,
            clock=clock,
            observer=observer,
            sleep=partial(sleep, "notices"),
        )
        self._watch = ReceiverWatch(
            store=store.receivers,
            digests={receiver.name: receiver.digest for receiver in receivers},
            gate=gate,
            clock=clock,
            observer=observer,
            sleep=partial(sleep, "receivers"),
        )
        self._deliveries = {
            f"delivery to {receiver.name}": Delivery(
                receiver=receiver, store=store, gate=gate, clock=clock, observer=observer
            )
            for receiver in receivers
        }

    def tasks(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Return, by name, the tasks that run as long as the daemon does; each is to be awaited."""
        always = {"notices": self._announcer.run(), "receiver watch": self._watch.run()}
        return {**always, **{name: each.run() for name, each in self._deliveries.items()}}
