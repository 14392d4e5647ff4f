"""At no instant do two processes act, whatever stands still, gets lost, comes late, dies or is edited by hand."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deadline import until
from hypothesis import given, settings
from hypothesis import strategies as st
from lease_in_memory import NEVER_SECONDS, LeaseInMemory, LeaseServer, Trip
from telemetry_scene import LogOnly
from virtual_time import Halting, ProcessClock, in_virtual_time

from pool_daemon.guards.leadership import Leadership

SECONDS = 15.0
TROUBLE_SECONDS = 100.0
PATIENCE_SECONDS = 3 * SECONDS
SLOWEST, FASTEST = 0.9, 1.12
"""Rates of the clocks: the fastest gains 24.4 % on the slowest, and 25 % is what the margin allows."""

Document = dict[str, Any]


@dataclass(frozen=True)
class Life:
    """What happens to one process: `pauses` by the number of the await, `trips` by the number of the request."""

    starts_at: float
    lasts_seconds: float
    stops_in_order: bool
    keeps_its_name: bool
    clock_rate: float
    pauses: Mapping[int, float]
    trips: Mapping[int, Trip]


@dataclass
class World:
    """One lease and the processes that are alive; `check` is called whenever one of them has done anything."""

    server: LeaseServer
    in_trouble: bool = True
    alive: list["Process"] = field(default_factory=list)
    terms: list[tuple[int | None, "Process"]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def acting(self) -> list["Process"]:
        return [process for process in self.alive if process.leadership.closed_by() is None]

    def check(self) -> None:
        acting = self.acting()
        if len(acting) > 1:
            names = [process.leadership.holder for process in acting]
            self.violations.append(f"at {asyncio.get_running_loop().time():.3f} s {names} act")
        for process in acting:
            term = (process.leadership.term, process)
            if term not in self.terms:
                self.terms.append(term)


class Process:
    def __init__(self, world: World, identity: str, life: Life) -> None:
        self._world = world
        self._life = life
        self._awaits = self._requests = 0
        store = LeaseInMemory(server=world.server, identity=identity, seconds=SECONDS, next_trip=self._next_trip)
        self.leadership = Leadership(
            store=store,
            clock=ProcessClock(rate=life.clock_rate, started_at=life.starts_at),
            on_acquired=lambda: None,
            observer=LogOnly(),
        )

    async def live(self) -> None:
        self._world.alive.append(self)
        running = asyncio.create_task(self._halting(self.leadership.run()))
        await asyncio.sleep(self._life.lasts_seconds)
        if self._life.stops_in_order:
            await self._halting(self.leadership.release())
        self._world.alive.remove(self)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    async def _halting(self, coroutine: Any) -> None:
        await Halting(coroutine, pause_seconds=self._next_pause, stepped=self._world.check)

    def _next_pause(self) -> float:
        self._awaits += 1
        return self._life.pauses.get(self._awaits, 0.0) if self._world.in_trouble else 0.0

    def _next_trip(self) -> Trip:
        self._requests += 1
        return self._life.trips.get(self._requests, Trip()) if self._world.in_trouble else Trip()


async def live_in_turn(world: World, place: str, lives: list[Life]) -> None:
    """Let processes follow each other, each after the one before has ended: under one name, or each under its own."""
    for number, life in enumerate(lives):
        await asyncio.sleep(life.starts_at)
        await Process(world, place if life.keeps_its_name else f"{place}-{number}", life).live()


async def edit_at(world: World, at: float, edited: Document) -> None:
    await asyncio.sleep(at)
    if world.server.document is not None:
        world.server.edit(**edited)


LENGTHS = st.sampled_from([0.1, 1.0, 4.9, 5.1, 11.9, 12.1, 14.9, 15.1]) | st.floats(0, 45, width=16)
TRIPS = st.builds(
    Trip, LENGTHS | st.just(NEVER_SECONDS) | st.just(0.0), LENGTHS | st.just(NEVER_SECONDS) | st.just(0.0)
)
LIVES = st.builds(
    Life,
    starts_at=st.floats(0, 10, width=16),
    lasts_seconds=st.floats(20, TROUBLE_SECONDS, width=16),
    stops_in_order=st.booleans(),
    keeps_its_name=st.booleans(),
    clock_rate=st.sampled_from([SLOWEST, 1.0, FASTEST]),
    pauses=st.dictionaries(st.integers(1, 40), LENGTHS, min_size=1, max_size=6),
    trips=st.dictionaries(st.integers(1, 20), TRIPS, max_size=6),
)
EDITS = st.tuples(
    st.floats(0, TROUBLE_SECONDS, width=16),
    st.sampled_from(
        [{"expires_at": "soon"}, {"holder": 5}, {"holder": "nobody"}, {"term": "one"}, {"term": 77}, {"seconds": 0.01}]
    ),
)


@settings(max_examples=100)
@given(
    places=st.lists(st.lists(LIVES, min_size=1, max_size=3), min_size=2, max_size=3),
    clock_rate=st.sampled_from([SLOWEST, 1.0, FASTEST]),
    edits=st.lists(EDITS, max_size=2),
)
@in_virtual_time
async def test_at_no_instant_two_processes_act_and_after_all_the_trouble_one_does(
    places: list[list[Life]], clock_rate: float, edits: list[tuple[float, Document]]
) -> None:
    world = World(LeaseServer(clock_rate=clock_rate))
    async with asyncio.TaskGroup() as trouble:
        happening = [
            *(trouble.create_task(live_in_turn(world, f"place {i}", lives)) for i, lives in enumerate(places)),
            *(trouble.create_task(edit_at(world, at, edited)) for at, edited in edits),
        ]
        await asyncio.sleep(TROUBLE_SECONDS)
        for task in happening:
            task.cancel()
    if not edits:
        terms = [term for term, _ in world.terms if term is not None]
        assert len(terms) == len(world.terms)
        assert sorted(set(terms)) == terms, "a term was given twice, or an older one after a newer"
    await somebody_acts(world)
    assert world.violations == []


async def somebody_acts(world: World) -> None:
    world.in_trouble = False
    life = Life(0, NEVER_SECONDS, False, True, SLOWEST, {}, {})  # noqa: FBT003 - one more process, which lives on
    last = asyncio.create_task(Process(world, "last", life).live())
    await until(world.acting, within_seconds=PATIENCE_SECONDS, what="somebody acts again", every_seconds=0.1)
    last.cancel()
