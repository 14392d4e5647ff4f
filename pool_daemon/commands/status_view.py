"""The status of the daemon, formatted for a terminal."""

from collections.abc import Iterator
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pool_daemon.plain_text import date, escaped

EVENTS: Final = 10
UPCOMING: Final = 5
Picture = dict[str, Any]
Line = tuple[str, Text]

LENGTHS: Final = ((172_800, 86_400, "d"), (7200, 3600, "h"), (120, 60, "min"), (10, 1, "s"))
"""The shortest span, in seconds, for each unit, and the unit's length in seconds."""


def portrait(picture: Picture, *, silent_seconds: float | None = None) -> RenderableType:
    """Format the answer of `/statusz`; `silent_seconds` is how long the daemon has not answered since."""
    picture = printable(picture)
    parts: list[RenderableType] = [_head(picture), _table(_lines(picture))]
    if silent_seconds is not None:
        parts.insert(0, Text(f"no answer for {span(silent_seconds)}; this is its last status", "bold white on red"))
    if picture["upcoming"]:
        parts += [Text("\nruns empty next", "bold"), _table(_upcoming(picture))]
    if picture["events"]:
        parts += [Text("\nevents", "bold"), _events(picture["events"][:EVENTS], now=picture["at"])]
    return Group(*parts)


def printable(picture: Any) -> Any:
    """Return the status with every text in it escaped: some were chosen by customers."""
    if isinstance(picture, dict):
        return {name: printable(value) for name, value in picture.items()}
    if isinstance(picture, list):
        return [printable(value) for value in picture]
    return escaped(picture) if isinstance(picture, str) else picture


def span(seconds: float) -> str:
    """Format a duration, rounded to its largest unit."""
    for least, unit, name in LENGTHS:
        if seconds >= least:
            return f"{seconds / unit:,.0f} {name}"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _head(picture: Picture) -> Text:
    ready = picture["ready"]["ok"] and picture["live"]["ok"]
    role = picture["role"] if picture["term"] is None else f"{picture['role']} in term {picture['term']}"
    return Text.assemble(
        ("pool-daemon ", "bold"),
        f"{picture['version']} on {picture['identity']}, {role}, up {span(picture['uptime_seconds'])}: ",
        ("ready", "bold green") if ready else ("not ready", "bold red"),
    )


def _lines(picture: Picture) -> Iterator[Line]:
    for attention in picture["attention"]:
        yield "not done", Text(f"{attention['short']}: {attention['detail']}", "bold yellow")
    if picture["role"] == "standby":
        yield "standby", Text(f"{picture['leader'] or 'no known daemon'} leads, and does what is due")
    for problem in dict.fromkeys([*picture["live"]["problems"], *picture["started"]["problems"]]):
        yield "problem", Text(problem, "red")
    for problem in picture["ready"]["problems"]:
        yield "not ready", Text(problem, "red")
    yield "next", _next(picture)
    yield "timers", _timers(picture)
    yield "last pass", _last_pass(picture)
    yield "stream", _stream(picture["stream"])
    yield "database", _database(picture["database"])
    for index, reason in picture["indexes_missing"].items():
        yield "no index", Text(f"{index}: {reason}", "yellow")
    yield "clocks", _clocks(picture["clocks"])
    if picture["brake"] is None:
        yield "brake", Text("holds nothing")
    if picture["role"] != "standby":  # only a leader knows which overdue pools it has settled
        yield "backlog", _count(picture["backlog"], "due and not settled", age_seconds=picture["backlog_age_seconds"])
    yield "quarantine", _count(picture["quarantine"]["pools"], "in quarantine")
    yield (
        "run empty",
        _expiring(picture["expiring"] or {}, picture["expiring_age_seconds"]),
    )


def _next(picture: Picture) -> Text:
    at, pool_id = picture["next"]["at"], picture["next"]["pool_id"]
    if at is None:
        return Text(f"nothing {'else ' if picture['attention'] else ''}is known to fall due")
    left = at - picture["at"]
    what = "another check of a pool" if pool_id is None else f"pool {pool_id} runs empty"
    return Text(f"{what} {f'in {span(left)}' if left > 0 else 'now'} ({date(at)})", "bold")


def _timers(picture: Picture) -> Text:
    """Return when each job of the timer rings next, in order of time."""
    jobs = sorted((at, name) for name, at in picture["timers"].items())
    return Text(", ".join(f"{name} in {span(max(0.0, at - picture['at']))}" for at, name in jobs) or "none yet")


def _last_pass(picture: Picture) -> Text:
    last = picture["last_pass"]
    if last is None:
        return Text("none yet")
    ago = span(max(0.0, picture["at"] - last["ended_at"]))
    if last["outcome"] == "failed":
        return Text(f"failed {ago} ago: {last['reason']}", "red")
    if last["outcome"] == "held":
        return Text(f"held {ago} ago: {last['reason']}", "" if picture["role"] == "standby" else "yellow")
    would = "would be " if picture["dry_run"] else ""
    return Text(
        f"{last['outcome']} {ago} ago in {span(last['seconds'])}: {_number(last['settled'], 'pool')} {would}settled, "
        f"{_number(last['decommissioned'], 'workload')} {would}decommissioned"
    )


def _stream(stream: Picture) -> Text:
    if stream["state"] == "open":
        return Text(f"open, its token moved {span(stream['token_age_seconds'])} ago")
    return Text(f"{stream['state']}: {stream['reason'] or 'not opened yet'}", "yellow")


def _clocks(clocks: Picture | None) -> Text:
    if clocks is None:
        return Text("not compared yet")
    apart = f"{span(abs(clocks['difference_seconds']))} apart"
    return Text(f"agree, {apart}") if clocks["agree"] else Text(f"disagree, {apart}", "red")


def _database(database: Picture) -> Text:
    age = database["answer_age_seconds"]
    return Text("has not answered yet", "yellow") if age is None else Text(f"answered {span(age)} ago")


def _count(pools: int | None, what: str, *, age_seconds: float | None = None) -> Text:
    if pools is None:
        return Text("not counted yet")
    counted = "" if age_seconds is None else f", counted {span(age_seconds)} ago"
    return Text(f"{_number(pools, 'pool')} {what}{counted}", "yellow") if pools else Text(f"none{counted}")


def _expiring(expiring: Picture, age_seconds: float | None) -> Text:
    if not expiring or age_seconds is None:
        return Text("not counted yet")
    counts = ", ".join(f"{number:,} within {name}" for name, number in expiring.items())
    return Text(f"{counts}, counted {span(age_seconds)} ago")


def _number(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _upcoming(picture: Picture) -> Iterator[Line]:
    for pool in picture["upcoming"][:UPCOMING]:
        left = span(pool["empty_at"] - picture["at"])
        yield f"pool {pool['pool_id']}", Text(f"in {left} ({date(pool['empty_at'])}), customer {pool['customer_tid']}")


def _events(events: list[Picture], *, now: float) -> Table:
    table = Table.grid(padding=(0, 2))
    for event in events:
        pool = "" if event["pool_id"] is None else f"pool {event['pool_id']}: "
        times = f", {event['times']} times" if event["times"] > 1 else ""
        late = "" if event["lateness_seconds"] is None else f", {span(event['lateness_seconds'])} late"
        table.add_row(
            Text(_time(event["at"], now=now), "dim"), Text(event["kind"]), Text(f"{pool}{event['text']}{late}{times}")
        )
    return table


def _table(lines: Iterator[Line]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, text in lines:
        table.add_row(Text(name, "dim"), text)
    return table


def _time(at: float, *, now: float) -> str:
    """Return the time of day, with its date unless that is today."""
    shown = date(at)
    return shown[11:19] if shown[:10] == date(now)[:10] else shown[:19]
