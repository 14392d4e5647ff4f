"""Notices to owners of pools: what was told and delivered, what comes next, and a try of a receiver."""

import argparse
import asyncio
import json
import sys
import time
from typing import Any, Final

from pool_daemon.capacity.pool import NEVER
from pool_daemon.clock import SystemClock
from pool_daemon.commands import add_config_argument, int64
from pool_daemon.commands.arguments import add_limit_argument
from pool_daemon.commands.connection import connection
from pool_daemon.errors import ConfigurationError, ExitCode, PoolNotFoundError, StoreError
from pool_daemon.notices.alertmanager import Alertmanager
from pool_daemon.notices.parts import receiver_names, receivers_of
from pool_daemon.notices.receiver import Delivered, Outcome, Receiver
from pool_daemon.notices.webhook import Webhook
from pool_daemon.plain_text import date, escaped
from pool_daemon.settings import Settings, load_settings
from pool_daemon.settings.notices import lead_seconds
from pool_daemon.store.client import Database
from pool_daemon.store.notices import LastNotice, NoticeStore
from pool_daemon.store.outbox import DeliveryState, Entry, MessageKind, Outbox, new_event_id
from pool_daemon.store.receivers import ReceiverStore
from pool_daemon.views.texts import span, when

EXAMPLES = (
    "pool-daemon notices list --config /etc/pool-daemon/config.toml",
    "pool-daemon notices list --dead --json | jq .last_error",
    "pool-daemon notices preview --pool 17",
    "pool-daemon notices replay 7f3c2f0e6f4f4d0e9f0f8d3a5b1c2d4e",
    "pool-daemon notices test webhook",
)

LINE: Final = "{:19}  {:10}  {:>8}  {:24}  {:20}  {:32}  {}"

SHOWN: Final = 50

RECEIVERS: Final = (Webhook.name, Alertmanager.name)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `list`, `preview`, `replay` and `test`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser(
        "list", help="the newest events and what became of them", description="Print the newest events of the outbox."
    )
    listing.add_argument("--dead", action="store_true", help="only those that could not be delivered in time")
    add_limit_argument(listing, default=SHOWN, what="events")
    preview = actions.add_parser(
        "preview", help="what a pool's owner is told, and when", description="Print when a pool's owner is told."
    )
    preview.add_argument("--pool", type=int64, required=True, metavar="ID", help="the pool's id")
    replay = actions.add_parser(
        "replay",
        help="send an event again",
        description="Have an event sent again, delivered or dead, under the id that it has.",
    )
    replay.add_argument("event_id", metavar="EVENT", help="the event's id, as `list` prints it")
    testing = actions.add_parser(
        "test",
        help="send a test event",
        description="Send an event of the type pool-daemon.test, once. A receiver that takes it is on again.",
    )
    testing.add_argument("receiver", choices=RECEIVERS, metavar="RECEIVER", help=" or ".join(RECEIVERS))
    for action in (listing, preview, replay, testing):
        add_config_argument(action)
        action.add_argument("--json", action="store_true", help="print JSON; instants in unix seconds")


def run(arguments: argparse.Namespace) -> ExitCode:
    """List, preview, replay or test; FAILED if there is no such event, or the receiver does not take the test."""
    settings = load_settings(arguments.config)
    if arguments.action == "test":
        return _test(settings, arguments.receiver, as_json=arguments.json)
    with connection(settings) as database:
        outbox = Outbox(
            database=database,
            receivers=receiver_names(settings),
            keep_seconds=settings.notices.keep_seconds,
        )
        if arguments.action == "list":
            states = [DeliveryState.DEAD] if arguments.dead else list(DeliveryState)
            return asyncio.run(_list(outbox, states, limit=arguments.limit, as_json=arguments.json))
        if arguments.action == "replay":
            return asyncio.run(_replay(outbox, arguments.event_id, as_json=arguments.json))
        return asyncio.run(_preview(database, outbox, settings, arguments.pool, as_json=arguments.json))


async def _list(outbox: Outbox, states: list[DeliveryState], *, limit: int, as_json: bool) -> ExitCode:
    entries = await outbox.page(states=states, limit=limit)
    if as_json:
        for entry in entries:
            print(json.dumps(_as_json(entry)))
    elif entries:
        print(LINE.format("written", "state", "attempts", "type", "subject", "event", "last error"))
        for entry in entries:
            print(_line(entry))
    else:
        print("no event is in the outbox" if len(states) > 1 else "no event is dead")
    return ExitCode.OK


def _line(entry: Entry) -> str:
    return LINE.format(
        date(entry.created_at).removesuffix(" UTC"),
        entry.state,
        entry.attempts,
        escaped(entry.kind),
        escaped(str(entry.event.get("subject"))),
        escaped(entry.event_id),
        escaped(entry.last_error or ""),
    ).rstrip()


def _as_json(entry: Entry) -> dict[str, Any]:
    fields = {name: getattr(entry, name) for name in entry.__slots__ if name not in {"key", "pools", "leased_until"}}
    return {**fields, "leased_until": entry.leased_until.timestamp()}


async def _replay(outbox: Outbox, event_id: str, *, as_json: bool) -> ExitCode:
    if outbox.receivers == (None,):
        raise ConfigurationError("webhook.url, alertmanager.url: missing, so there is nobody to send an event to")
    revived = await outbox.revive(event_id, now=time.time())
    if as_json:
        print(json.dumps({"event_id": event_id, "receivers": revived}))
    elif revived:
        print(f"event {escaped(event_id)} is sent again to {', '.join(revived)}")
    else:
        print(f"event {escaped(event_id)} is not in the outbox, or is pending already")
    return ExitCode.OK if revived else ExitCode.FAILED


def _test(settings: Settings, name: str, *, as_json: bool) -> ExitCode:
    """Send a test, and turn on a receiver that takes it; without a database nothing is off."""
    receivers = {each.name: each for each in receivers_of(settings, clock=SystemClock())}
    if name not in receivers:
        raise ConfigurationError(f"{name}.url: missing, so there is nobody to send a test to")
    outcome = asyncio.run(_sent(receivers[name], settings.database.name))
    reason = None if isinstance(outcome, Delivered) else outcome.reason
    if as_json:
        print(json.dumps({"receiver": name, "delivered": reason is None, "reason": reason}))
    else:
        print(f"{name} has taken a test event" if reason is None else f"{name} has not: {escaped(reason)}")
    if reason is None and _turned_on(settings, name) and not as_json:
        print(f"{name} was off, and gets notices again")
    return ExitCode.OK if reason is None else ExitCode.FAILED


def _turned_on(settings: Settings, name: str) -> bool:
    """Turn a receiver on; return whether it was off. One that may be off all the same is told."""
    try:
        with connection(settings) as database:
            return asyncio.run(ReceiverStore(database=database).turn_on(name))
    except (ConfigurationError, StoreError) as error:
        print(f"pool-daemon: if {name} was off, it still is: {escaped(str(error))}", file=sys.stderr)
        return False


async def _sent(receiver: Receiver, database_name: str) -> Outcome:
    event = {
        "specversion": "1.0",
        "id": new_event_id(),
        "source": f"/pool-daemon/{database_name}",
        "type": MessageKind.TEST,
        "datacontenttype": "application/json",
        "data": {"customer_tid": 0, "pools": []},
    }
    try:
        return await receiver.send(event)
    finally:
        await receiver.close()


async def _preview(database: Database, outbox: Outbox, settings: Settings, pool_id: int, *, as_json: bool) -> ExitCode:
    store = NoticeStore(database=database, outbox=outbox)
    pool = (await store.pools([pool_id])).get(pool_id)
    if pool is None:
        raise PoolNotFoundError(f"pool {pool_id}: could not be found, or cannot be read; see pools show {pool_id}")
    told = (await store.told([pool_id])).get(pool_id)
    due = {lead: pool.empty_at - lead_seconds(lead) for lead in settings.notices.before if pool.empty_at != NEVER}
    if as_json:
        shown = None if told is None else {name: getattr(told, name) for name in told.__slots__ if name != "pool_id"}
        print(
            json.dumps(
                {
                    "pool_id": pool_id,
                    "customer_tid": pool.customer_tid,
                    "empty_at": pool.empty_at,
                    "told": shown,
                    "due_at": due,
                }
            )
        )
        return ExitCode.OK
    print(f"pool {pool_id} of owner {pool.customer_tid} runs empty {when(pool.empty_at)}")
    print(_about(told))
    for lead, at in sorted(due.items(), key=lambda item: item[1]):
        if told is None or lead_seconds(lead) < told.lead:
            print(f"{lead} before: {when(at)}")
    if not settings.notices.before:
        print("notices are off: notices.before is empty")
    return ExitCode.OK


def _about(told: LastNotice | None) -> str:
    if told is None:
        return "nothing is told of it now"
    return (
        f"told {date(told.told_at)} that it lasts no longer than {span(told.lead)}, by event {escaped(told.event_id)}"
    )
