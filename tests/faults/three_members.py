"""A replica set of three for tests that have no event loop of their own."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from arithmetic_model import Document
from pymongo import MongoClient
from replica_set import BreakableMongod, EmbeddedReplicaSet

INELIGIBLE_SECONDS = 4
"""A primary that stepped down may lead again after this time: soon enough for the next but one to step down."""


class ThreeMembers:
    """The set with its event loop, which runs only while a method is called; a context manager for one thread."""

    def __init__(self, *, folder: Path) -> None:
        self._runner = asyncio.Runner()
        self._set = EmbeddedReplicaSet(folder=folder)
        self._dead: list[BreakableMongod] = []

    @property
    def uri(self) -> str:
        """Where clients connect to the whole set."""
        return self._set.uri

    @property
    def primary(self) -> BreakableMongod:
        """The primary, once there is one."""
        return self._runner.run(self._set.primary())

    def __enter__(self) -> Self:
        self._runner.run(self._set.start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.run(self._set.stop())
        self._runner.close()

    def step_down(self) -> None:
        """Make the primary hand over; return once its successor takes writes."""
        self._runner.run(self._set.step_down(ineligible_seconds=INELIGIBLE_SECONDS))

    def kill_primary(self) -> None:
        """End the primary as kill -9 does; return once the two others have elected one of them."""
        victim = self.primary
        self._dead.append(victim)
        self._runner.run(victim.kill())
        self._runner.run(self._set.primary())

    @contextmanager
    def replication_stopped(self) -> Iterator[None]:
        """Let the secondaries fetch nothing: the primary goes on, and no majority confirms what it writes."""
        primary = self.primary
        secondaries = [member for member in self._set.members if member is not primary]
        try:
            for member in secondaries:
                _stop_replication(member, mode="alwaysOn")
            yield
        finally:
            for member in secondaries:
                _stop_replication(member, mode="off")

    def lose(self, write: Callable[[MongoClient[Document]], None]) -> None:
        """Let `write` do what the primary alone knows of, and kill that; return once another one leads."""
        victim = self.primary
        with self.replication_stopped():
            # Closed before the kill: a client of a dead server takes half a minute to end its sessions.
            with MongoClient[Document](victim.uri, directConnection=True, w=1) as client:
                write(client)
            self._dead.append(victim)
            self._runner.run(victim.kill())
        self._runner.run(self._set.primary())

    def mend(self) -> None:
        """Start the members that were killed; return once all of them are there again."""
        while self._dead:
            self._runner.run(self._dead.pop().start())
        self._runner.run(self._set.complete())


def _stop_replication(member: BreakableMongod, *, mode: str) -> None:
    with MongoClient[Document](member.uri, directConnection=True) as client:
        client.admin.command({"configureFailPoint": "stopReplProducer", "mode": mode})
