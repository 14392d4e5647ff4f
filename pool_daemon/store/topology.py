"""The choice of a server: one router of several; and notice of a newly elected primary."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from pymongo.monitoring import (
    TopologyClosedEvent,
    TopologyDescriptionChangedEvent,
    TopologyListener,
    TopologyOpenedEvent,
)
from pymongo.server_description import ServerDescription


class OneRouter:
    """Keeps a client to one mongos of several, and changes to another if that one is away.

    A cursor lives in the mongos that opened it, and the driver selects a mongos for each command: with two of them
    every other command of a change stream would not find its cursor. Pass it to one client as its `server_selector`;
    servers of a replica set are not filtered.
    """

    def __init__(self) -> None:
        self._address: Any = None

    def __call__(self, servers: Sequence[ServerDescription]) -> Sequence[ServerDescription]:
        """Return the server to use, of those that answer."""
        if not all(server.server_type_name == "Mongos" for server in servers):
            return servers
        kept = [server for server in servers if server.address == self._address]
        if not kept:
            kept = sorted(servers, key=lambda server: server.address)[:1]
            self._address = kept[0].address if kept else None
        return kept


class PrimaryChanges(TopologyListener):
    """Notices when another primary is elected, or the same one anew.

    No change stream reports what an election rolls back. Pass it to each client as one of its `event_listeners`. Behind
    mongos the elections of the shards are invisible.
    """

    def __init__(self) -> None:
        self._elected: Any = None
        self._changed: Callable[[], None] = lambda: None
        self._loop: asyncio.AbstractEventLoop | None = None

    def follow(self, changed: Callable[[], None]) -> None:
        """Call `changed` in the running event loop after each change from now on."""
        self._changed = changed
        self._loop = asyncio.get_running_loop()

    def opened(self, event: TopologyOpenedEvent) -> None:
        """Ignore it: no server is known yet."""

    def description_changed(self, event: TopologyDescriptionChangedEvent) -> None:
        """Look for a primary; called in the driver's threads."""
        for server in event.new_description.server_descriptions().values():
            if server.server_type_name != "RSPrimary":
                continue
            elected = (server.set_version, server.election_id)
            if self._loop is None:
                self._elected = elected
            else:
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    self._loop.call_soon_threadsafe(self._saw, elected)

    def closed(self, event: TopologyClosedEvent) -> None:
        """Ignore it: the daemon ends."""

    def _saw(self, elected: Any) -> None:
        known, self._elected = self._elected, elected
        if known is not None and elected != known:  # the first to be seen is no change
            self._changed()
