"""The display while the demo runs: a live table on a terminal, plain lines elsewhere."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pool_daemon.demo.scenario import BEFORE_THE_DAEMON, PlannedPool
from pool_daemon.demo.scene import Record, Scene, SceneEvent, Voice
from pool_daemon.demo.verdict import TOLERANCE, milliseconds
from pool_daemon.plain_text import escaped

SOON: Final = "bold magenta"
SOON_SECONDS: Final = 3
HORIZON_SECONDS: Final = 25
"""A pool that lasts this long or longer has a full bar."""

MINUTES_FROM_SECONDS: Final = 100
CENTURY_SECONDS: Final = 100 * 365 * 86400
BAR_COLUMNS: Final = 22

WIDE_COLUMNS: Final = 76
"""Columns from which on there is room to describe each pool."""

OTHER_LINES: Final = 4
LEAST_EVENTS: Final = 3

STYLES: Final = {Voice.STAGE: "dim", Voice.CUSTOMER: "cyan", Voice.DAEMON: "green", Voice.WARNING: "magenta"}
"""The terminal's own colours that are legible on both dark and light backgrounds."""


class Screen(Protocol):
    """Shows the demo while it runs."""

    def show(self, scene: Scene) -> None:
        """Show the scene in place of the one before."""


@contextmanager
def screen_on(console: Console, *, plain: bool) -> Iterator[Screen]:
    """Use the console while the demo runs; a live table restores it."""
    if plain:
        yield PlainScreen(console=console)
    else:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            yield LiveScreen(live=live)


class PlainScreen:
    """Prints each event on a line of its own."""

    def __init__(self, *, console: Console) -> None:
        self._console = console
        self._shown = 0

    def show(self, scene: Scene) -> None:
        """Print the events that are new."""
        for event in scene.events[self._shown :]:
            self._console.print(event_line(event), no_wrap=True, overflow="ellipsis")
        self._shown = len(scene.events)


class LiveScreen:
    """Redraws the pools and the latest events in the same place."""

    def __init__(self, *, live: Live) -> None:
        self._live = live

    def show(self, scene: Scene) -> None:
        """Draw the scene."""
        console = self._live.console
        self._live.update(picture(scene, lines=console.height - 1, columns=console.width), refresh=True)


def picture(scene: Scene, *, lines: int, columns: int) -> RenderableType:
    """Draw the scene: the pools, and below them as many of the latest events as there are lines left.

    With too few lines for both, the pools that change soonest are shown, and the number of the others.
    """
    room = max(1, lines - OTHER_LINES - LEAST_EVENTS)
    shown, more = list(scene.plans), 0
    if len(shown) > room:
        shown = _next_to_change(scene, room - 1)
        more = len(scene.plans) - len(shown)
    below = [Text(f"and {more} more; a taller terminal shows all", "dim")] if more else []
    left = max(LEAST_EVENTS, lines - len(shown) - len(below) - OTHER_LINES)
    events = (event_line(event) for event in scene.events[-left:])
    return Group(_headline(scene), Text(), _pools(scene, shown, columns), *below, Text(), *events)


def _next_to_change(scene: Scene, number: int) -> list[PlannedPool]:
    """Return the pools that run empty next, in the order of the scenario; finished pools come last."""

    def seconds(plan: PlannedPool) -> float:
        left = scene.seconds_left(plan)
        return math.inf if left is None or left <= 0 or scene.snapshot.records_of(plan) else left

    soonest = sorted(scene.plans, key=seconds)[:number]
    return [plan for plan in scene.plans if plan in soonest]


def event_line(event: SceneEvent) -> Text:
    """Return the event as one line, truncated rather than wrapped."""
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"{'' if event.second is None else f'{event.second:.3f} s':>9}  ", "dim")
    line.append(f"{event.voice:<8}  ", STYLES[event.voice])
    return line.append(escaped(event.text))


def _headline(scene: Scene) -> Table:
    line = Table.grid(expand=True)
    line.add_column()
    line.add_column(justify="right")
    line.add_row(Text.assemble(("pool-daemon demo", "bold"), ("   Ctrl-C ends it", "dim")), Text(_clock(scene), "bold"))
    return line


def _clock(scene: Scene) -> str:
    if scene.second is None:
        return "getting ready"
    if scene.second > scene.last_second:
        return "stopping"
    return f"second {max(int(scene.second), 0)} of {scene.last_second}"


def _pools(scene: Scene, plans: Sequence[PlannedPool], columns: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("pool", no_wrap=True)
    if columns >= WIDE_COLUMNS:
        table.add_column("what it shows", no_wrap=True)
    table.add_column("lasts", no_wrap=True, justify="right", width=8)
    table.add_column("state", no_wrap=True)
    for plan in plans:
        left = None if scene.snapshot.records_of(plan) else scene.seconds_left(plan)
        state = _outcome(plan, scene) or _running(left)
        about = [Text(plan.shows)] if columns >= WIDE_COLUMNS else []
        table.add_row(Text(plan.name, "bold"), *about, _countdown(left), state)
    return table


def _countdown(left: float | None) -> Text:
    if left is None or left <= 0:
        return Text()
    if left > CENTURY_SECONDS:
        return Text("for ever")
    if left >= MINUTES_FROM_SECONDS:
        return Text(f"{left / 60:.0f} min")
    return Text(f"{left:.1f} s", SOON if left < SOON_SECONDS else "")


def _running(left: float | None) -> Text:
    state = Text("running  ")
    if left is not None and 0 < left < CENTURY_SECONDS:
        halves = round(2 * BAR_COLUMNS * min(left / HORIZON_SECONDS, 1))
        state.append("━" * (halves // 2) + "╸" * (halves % 2), SOON if left < SOON_SECONDS else "cyan")
    return state


def _outcome(plan: PlannedPool, scene: Scene) -> Text | None:
    """Describe the result for a pool, None while it just runs."""
    records = scene.snapshot.records_of(plan)
    if plan.pool_id not in scene.snapshot.pools:
        return Text("not bought yet", "dim")
    if any(record.workload_id not in plan.leaving for record in records):
        return Text("✗ stopped, must run on", "bold red")
    if records and len(records) == len(plan.leaving):
        return _stopped(plan, records)
    if plan.appears == BEFORE_THE_DAEMON:
        return Text("skipped, runs on" if plan.damaged else "waits for the daemon")
    empty_at = scene.timetable.empty_at(plan)
    if empty_at is not None and scene.now > empty_at + TOLERANCE.total_seconds():
        return Text("✗ still running", "bold red")
    return None


def _stopped(plan: PlannedPool, records: list[Record]) -> Text:
    if plan.appears == BEFORE_THE_DAEMON:
        return Text("✓ stopped at once", "green")
    earliest = min(record.lateness for record in records)
    latest = max(record.lateness for record in records)
    if earliest < timedelta():
        return Text(f"✗ stopped {-milliseconds(earliest)} ms early", "bold red")
    if latest >= TOLERANCE:
        return Text(f"✗ stopped {milliseconds(latest)} ms late", "bold red")
    share = f" {len(records)} of {len(plan.all_workloads)}" if plan.stays else ""
    return Text(f"✓ stopped{share}, {milliseconds(latest)} ms late", "green")
